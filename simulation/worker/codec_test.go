package worker

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/weights"
	"pgregory.net/rapid"
)

func TestAddress(t *testing.T) {
	a := Address{Host: "lab-7.example:7443", Fingerprint: identity.Fingerprint{1, 2, 3}, Secret: identity.Secret{4, 5, 6}}
	text := a.String()
	if got, err := ParseAddress(" " + text + "\n"); err != nil || got != a {
		t.Errorf("%s reads as %+v, %v", text, got, err)
	}
	six := Address{Host: "[::1]:80"}
	if got, err := ParseAddress(six.String()); err != nil || got != six {
		t.Errorf("%s reads as %+v, %v", six, got, err)
	}
	if strings.Contains(fmt.Sprintf("%v %+v", a.Secret, a.Secret), "4") {
		t.Error("a secret is shown")
	}
	rapid.Check(t, func(t *rapid.T) { // any one character that is changed is noticed
		i := rapid.IntRange(strings.LastIndex(text, "/")+1, len(text)-1).Draw(t, "at")
		c := rapid.SampledFrom([]byte("ABCxyz019-_")).Draw(t, "to")
		if c == text[i] {
			return
		}
		if got, err := ParseAddress(text[:i] + string(c) + text[i+1:]); err == nil {
			t.Errorf("mistyped at %d: %+v", i, got)
		}
	})
	for _, c := range []struct{ text, err string }{
		{"https://host:1/x", "expected worker://HOST:PORT/TOKEN"}, {"", "expected worker://"}, {"worker://host/x", "is not a HOST:PORT"},
		{text[:len(text)-3], "cut short"}, {text + "A", "mistyped"}, {text + "?a=b", "expected worker://"}, {"worker://h:1", "cut short"},
	} {
		if _, err := ParseAddress(c.text); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: error %v, want %s", c.text, err, c.err)
		}
	}
}

// examples draws a data set of any form.
func examples(t *rapid.T) *dataset.Examples {
	e := &dataset.Examples{Name: rapid.String().Draw(t, "name"), Classes: []string{"a", "b"},
		Shape: rapid.SliceOfN(rapid.IntRange(1, 3), 1, 3).Draw(t, "shape")}
	n := rapid.IntRange(0, 5).Draw(t, "rows")
	values := n * e.Size()
	floats := rapid.SliceOfN(rapid.Float32Range(-1e30, 1e30), values, values)
	switch rapid.SampledFrom([]string{"bytes", "numbers", "tokens"}).Draw(t, "input") {
	case "bytes":
		e.U8 = rapid.SliceOfN(rapid.Byte(), values, values).Draw(t, "bytes")
	case "tokens":
		e.Tok = rapid.SliceOfN(rapid.Int32(), values, values).Draw(t, "tokens")
	default:
		e.F32 = floats.Draw(t, "numbers")
	}
	if rapid.Bool().Draw(t, "labels") {
		e.Labels = rapid.SliceOfN(rapid.Int32Range(0, 1), n, n).Draw(t, "classes")
	} else {
		e.Targets = rapid.SliceOfN(rapid.Float32Range(-1e30, 1e30), n, n).Draw(t, "targets")
	}
	if e.Tok == nil && rapid.Bool().Draw(t, "normalised") {
		c := e.Shape[len(e.Shape)-1]
		e.Mean = rapid.SliceOfN(rapid.Float32Range(-9, 9), c, c).Draw(t, "mean")
		e.Std = rapid.SliceOfN(rapid.Float32Range(0.1, 9), c, c).Draw(t, "std")
	}
	return e
}

// Examples travel to the bit, and what there is none of stays told from what is empty.
func TestExamplesTravel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := examples(t)
		b, err := formOf(want).encode()
		if err != nil {
			t.Fatal(err)
		}
		f, err := decodeForm(b)
		if err != nil {
			t.Fatal(err)
		}
		at := blob.Sum(b)
		got, err := decodeRows(encodeRows(want, at), at, f)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%+v comes out as %+v", want, got)
		}
		if _, err := decodeRows(encodeRows(want, at), blob.Hash{}, f); err == nil {
			t.Error("rows of another form are taken")
		}
	})
}

// sampleResult is an answer with everything in it.
func sampleResult() *federated.Answer {
	s := weights.NewSet(2)
	s.Put("w", weights.Of32([]float32{1, float32(math.Inf(1))}, 2))
	s.Put("none", weights.Of64(nil, 0, 3))
	keep := weights.NewSet(1)
	keep.Put("own", weights.Of64([]float64{math.Copysign(0, -1)}, 1))
	return &federated.Answer{Result: federated.Result{Weight: 1 << 63, Addends: map[string]weights.Set{"w": s, "c": {}}, Keep: &keep,
		Cover: weights.Index{"w": {weights.List([]int32{1})}}, Scalars: map[string]float64{"loss": math.NaN(), "n": 0.1}, Attached: []byte("bytes")}}
}

func TestResultTravels(t *testing.T) {
	want := sampleResult()
	frame, keep, err := encodeResult(7, want)
	if err != nil || len(keep) == 0 {
		t.Fatal(err)
	}
	r, tensors, err := decodeResultHead(bytes.Join(frame, nil))
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.decode(tensors)
	if err != nil {
		t.Fatal(err)
	}
	if r.Task != 7 || got.Weight != want.Result.Weight || !got.Addends["w"].Equal(want.Result.Addends["w"]) || len(got.Addends) != 2 ||
		!got.Keep.Equal(*want.Result.Keep) || !math.IsNaN(got.Scalars["loss"]) || got.Scalars["n"] != 0.1 ||
		string(got.Attached) != "bytes" || !reflect.DeepEqual(got.Cover, want.Result.Cover) || !reflect.DeepEqual(got.Addends["w"].Names(), want.Result.Addends["w"].Names()) {
		t.Errorf("%+v comes out as %+v", want.Result, got)
	}
	for _, b := range [][]byte{nil, bytes.Join(frame, nil)[:20], append(bytes.Join(frame, nil), 1)} {
		if r, tensors, err = decodeResultHead(b); err == nil {
			_, err = r.decode(tensors)
		}
		if err == nil {
			t.Errorf("%d bytes are taken", len(b))
		}
	}
	frame, _, _ = encodeResult(7, &federated.Answer{Err: errors.New("")})
	if r, _, err := decodeResultHead(bytes.Join(frame, nil)); err != nil || r.Failed == "" {
		t.Errorf("a failure without words is %+v, %v", r, err)
	}
}

func TestCache(t *testing.T) {
	c := newCache(10)
	h := func(i byte) blob.Hash { return blob.Hash{i} }
	held := map[byte]*entry{}
	for i := range byte(3) {
		e, mine := c.claim(h(i))
		if !mine {
			t.Fatalf("%d is there already", i)
		}
		held[i] = e
		if _, mine := c.claim(h(i)); mine {
			t.Fatalf("%d is asked for twice", i)
		}
		c.deliver(h(i), i, 6)
		c.release(e)
	}
	if c.used != 18 { // all are in use
		t.Errorf("%d bytes are held", c.used)
	}
	c.release(held[1])
	c.release(held[0])
	c.release(held[2])
	if _, mine := c.claim(h(2)); mine || c.used != 6 { // room for one: that used last
		t.Errorf("the content used last went, %d bytes are held", c.used)
	}
	if _, mine := c.claim(h(0)); !mine {
		t.Error("the content used before it stayed")
	}
	c.deliver(h(9), 9, 1) // nobody waits for it
	if c.entries[h(9)] != nil {
		t.Error("a content that nobody asked for is held")
	}
	// One that is given up while it is on its way is not asked for again, and comes.
	e, _ := c.claim(h(5))
	c.release(e)
	again, mine := c.claim(h(5))
	c.deliver(h(5), 5, 1)
	if mine || !again.come() || again.value != 5 {
		t.Errorf("given up and wanted again: %v, %+v", mine, again)
	}
	lost, _ := c.claim(h(6))
	c.lose()
	if !lost.come() || lost.err != errLost {
		t.Errorf("lost: %+v", lost)
	}
	c.release(lost)
	if _, mine := c.claim(h(6)); !mine {
		t.Error("what was lost is not asked for again")
	}
}

// FuzzDecoders reads anything as every message: there is an error or a message, never a panic.
func FuzzDecoders(f *testing.F) {
	frame, keep, err := encodeResult(7, sampleResult())
	if err != nil {
		f.Fatal(err)
	}
	e := &dataset.Examples{Name: "x", Shape: []int{2}, U8: []uint8{1, 2}, Labels: []int32{0}, Classes: []string{"a"}}
	form, err := formOf(e).encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"seed":1,"recipe":"method: fedavg","like":{"shape":[2],"input":"bytes"}}`))
	f.Add([]byte(`{"id":1,"member":{"name":"bQ=="},"sets":{"w":"` + blob.Sum(nil).String() + `"}}`))
	f.Add([]byte(`{"w":[{"prefix":3},"all"]}`))
	f.Add(append(make([]byte, proofLen), `{"protocol":1,"threads":2,"machine":{"version":"1"}}`...))
	f.Add(bytes.Join(frame, nil))
	f.Add(keep)
	f.Add(form)
	f.Add(encodeRows(e, blob.Sum(form)))
	f.Add(encodeNumber(3))
	f.Add(append(headed(ask{1, 2, opKeep, []byte("name")}), "value"...))
	f.Add(append(headed(tell{Seq: 1, Erased: true, Failed: "erased"}), "value"...))
	f.Add(encodeWant(want{1, []blob.Hash{{}}}))
	f.Add(append([]byte{byte(kindPing)}, make([]byte, 8)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _, _ = decodeHello(b)
		_, _ = decodeTask(b)
		_, _ = decodeWant(b)
		_, _ = decodeNumber(b)
		_, _ = decodeIndex(b)
		var q ask
		if value, err := parted(b, &q); err == nil {
			_, _ = q.answer(federated.NewVault(), value)
			_, _ = q.answer(nil, value)
		}
		_ = (&visit{}).hear(b)
		if w, err := decodeWelcome(b); err == nil {
			_ = w.Like.empty().All()
		}
		if r, tensors, err := decodeResultHead(b); err == nil {
			_, _ = r.decode(tensors)
		}
		if s, err := decodeSet(b); err == nil {
			_, _ = encodeSet(s)
		}
		if f, err := decodeForm(b); err == nil {
			_, _ = decodeRows(b, blob.Sum(b), f)
		}
		if len(b) >= 32 {
			if x, err := decodeRows(b, blob.Hash(b[:32]), formOf(e)); err == nil && x.Validate() != nil {
				t.Errorf("rows that do not hold together: %+v", x)
			}
		}
		r := bytes.NewReader(b)
		for {
			if _, _, err := readFrame(r, 1<<20); err != nil {
				break
			}
		}
		if a, err := ParseAddress(string(b)); err == nil {
			if again, err := ParseAddress(a.String()); err != nil || again != a {
				t.Errorf("%q reads as %+v, then as %+v: %v", b, a, again, err)
			}
		}
		_, _ = presentable(string(b)), presentableLine(b)
	})
}
