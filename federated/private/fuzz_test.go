package private

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/secure/secagg"
)

// samples are terms as servers send them, of all kinds.
func samples(t testing.TB) (out []string) {
	t.Helper()
	for _, text := range []string{
		`{"session":"s","members":10,"threshold":7,"layout":{"folds":[{"name":"w","tensors":[{"name":"a","shape":[3,4]},{"name":"b","shape":[],"wide":true}]}],"holdings":[null]},"tasks":["00"]}`,
		`{"session":"s","members":10,"threshold":7,"layout":{"folds":[{"name":"w","indexed":true,"counts":true,"tensors":[{"name":"a","shape":[6,4]},{"name":"b","shape":[6]}]}],` +
			`"holdings":[{"a":[{"prefix":2},{"heads":2,"keep":1}],"b":[{"list":[0,1]}]},{"a":["all","all"],"b":null}],"rows":6,"rows_of":["a","b"]},"tasks":["00","01"]}`,
	} {
		if _, err := readTerms([]byte(text)); err != nil {
			t.Fatal(err)
		}
		out = append(out, text)
	}
	return out
}

// TestHugeTerms checks that terms that would take all memory, or all time, are refused.
func TestHugeTerms(t *testing.T) {
	for what, layout := range map[string]string{
		"a tensor":            `{"folds":[{"name":"w","tensors":[{"name":"a","shape":[1099511627776]}]}],"holdings":[null]}`,
		"an overflow":         `{"folds":[{"name":"w","tensors":[{"name":"a","shape":[4294967296,4294967296,4294967296]}]}],"holdings":[null]}`,
		"a negative axis":     `{"folds":[{"name":"w","tensors":[{"name":"a","shape":[-1]}]}],"holdings":[null]}`,
		"many positions":      `{"folds":[{"name":"w","indexed":true,"tensors":[{"name":"a","shape":[4294967296,1]}]}],"holdings":[{"a":["all","all"]}]}`,
		"many runs":           `{"folds":[{"name":"w","indexed":true,"tensors":[{"name":"a","shape":[65536,65536,2]}]}],"holdings":[{"a":["all","all",{"prefix":1}]}]}`,
		"a prefix too long":   `{"folds":[{"name":"w","indexed":true,"tensors":[{"name":"a","shape":[4]}]}],"holdings":[{"a":[{"prefix":1152921504606846976}]}]}`,
		"heads without end":   `{"folds":[{"name":"w","indexed":true,"tensors":[{"name":"a","shape":[4]}]}],"holdings":[{"a":[{"heads":4294967296,"keep":4294967296}]}]}`,
		"rows":                `{"folds":[],"holdings":[null],"rows":4611686018427387904}`,
		"rows that are fewer": `{"folds":[],"holdings":[null],"rows":-1}`,
		"no part":             `{"folds":[],"holdings":[]}`,
		"parts not nested":    `{"folds":[{"name":"w","indexed":true,"tensors":[{"name":"a","shape":[4]}]}],"holdings":[{"a":[{"list":[0]}]},{"a":[{"list":[1,2]}]}]}`,
		"positions twice":     `{"folds":[{"name":"w","indexed":true,"tensors":[{"name":"a","shape":[4]}]}],"holdings":[{"a":[{"list":[1,1]}]}]}`,
		"positions outside":   `{"folds":[{"name":"w","indexed":true,"tensors":[{"name":"a","shape":[4]}]}],"holdings":[{"a":[{"list":[4]}]}]}`,
		"axes too few":        `{"folds":[{"name":"w","indexed":true,"tensors":[{"name":"a","shape":[4,4]}]}],"holdings":[{"a":["all"]}]}`,
		"other rows":          `{"folds":[{"name":"w","tensors":[{"name":"a","shape":[4,2]}]}],"holdings":[null],"rows":3,"rows_of":["a"]}`,
	} {
		if _, err := readTerms([]byte(`{"session":"s","members":3,"threshold":3,"layout":` + layout + `}`)); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func FuzzTerms(f *testing.F) {
	for _, s := range samples(f) {
		f.Add([]byte(s))
	}
	a := NewSecure(nil, SecureOptions{Sparse: true, Corrupt: 0.1, Dropout: 0.1})
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := readTerms(b)
		if err != nil {
			return
		}
		for h, r := range l.Layout.ranges {
			if err := r.Validate(l.Layout.size); err != nil {
				t.Fatalf("holding %d: %v", h, err)
			}
		}
		again, err := l.marshal()
		if err != nil {
			t.Fatal(err)
		}
		same, err := readTerms(again)
		if err != nil || same.name() != l.name() || same.Layout.size != l.Layout.size || same.Layout.extra != l.Layout.extra {
			t.Fatalf("read again: %v, %v is not %v", err, same, l)
		}
		_ = a.acceptable(l)
	})
}

func FuzzKept(f *testing.F) {
	f.Add(kept{said: []byte("a"), state: []byte("bc"), memory: []byte("d")}.marshal())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := readKept(b)
		if err == nil && !bytes.Equal(k.marshal(), b) {
			t.Errorf("%x is read as something else", b)
		}
	})
}

// FuzzTask gives a member tasks made of nonsense: no panic, and nothing but keys leaves.
func FuzzTask(f *testing.F) {
	for _, step := range []string{session, keys, shares, masked, confirm, unmask, plain, ""} {
		for _, rows := range []bool{false, true} {
			b, err := json.Marshal(order{Step: step, Phase: "train", Rows: rows, Holding: 0, Allowed: []bool{true}, Params: []byte(`{"mu":0}`)})
			if err != nil {
				f.Fatal(err)
			}
			phase := "train." + step
			if rows {
				phase = "train.rows." + step
			}
			for _, terms := range samples(f) {
				f.Add(phase, 3, b, []byte(terms))
			}
			f.Add(phase, 0, b, []byte{1, 0, 0, 0, 0})
		}
	}
	w := fedtest.Blobs(fedtest.Engine(f, "go"), 6, 3, 8, 6, 12)
	a := NewSecure(fedavg.New(fedtest.Problem(f, 6, 3)), SecureOptions{})
	f.Fuzz(func(t *testing.T, phase string, round int, params, attached []byte) {
		at := w.Local(w.Member(1))
		at.Vault = federated.NewVault()
		r, err := a.Client().Run(t.Context(), at, federated.Task{Round: round, Phase: phase, Params: params, Attached: attached}, nil)
		if err != nil || r.Attached == nil {
			return
		}
		var advert secagg.Advert
		if err := advert.UnmarshalBinary(r.Attached); err != nil || advert.Name != "member-1" {
			t.Errorf("%d bytes left that are no keys: %v", len(r.Attached), err)
		}
	})
}
