package transport_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nkeys"
	"pgregory.net/rapid"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/transport"
)

var update = flag.Bool("update", false, "write the golden files anew")

// keyOf returns the key made from a seed of 32 times the byte.
func keyOf(b byte) identity.Key {
	pair, err := nkeys.FromRawSeed(nkeys.PrefixByteUser, bytes.Repeat([]byte{b}, 32))
	if err != nil {
		panic(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		panic(err)
	}
	k, err := identity.ParseKey(string(seed))
	if err != nil {
		panic(err)
	}
	return k
}

var (
	coordinator = keyOf(1)
	member      = keyOf(2)
	hash        = transport.DigestOf([]byte("some bytes"))
	task        = transport.DigestOf([]byte("a task"))
	head        = transport.Head{Seq: 17, Hash: transport.DigestOf([]byte("a record"))}
	blob        = transport.Ref{Hash: hash, Bytes: 123456, Media: "safetensors"}
)

// example is a message of each kind with every member of its body set.
type example struct {
	up   bool // from a member
	run  bool // about a run
	body transport.Body
	refs []transport.Ref
}

var examples = []example{
	{true, false, &transport.Hello{Versions: []int{1}, Program: "cohort 0.4", Kernels: "cpu/avx2", Can: []string{"train"},
		Heads: map[string]transport.Head{"digits": head}}, nil},
	{false, false, &transport.Welcome{Version: 1, You: "clinic-a", Federation: "hospitals", Program: "cohort 0.4", Runs: []string{"digits"}}, nil},
	{false, true, &transport.Terms{Recipe: "method: fedavg\n", Schema: json.RawMessage(`{"classes":10}`), Members: 3, Metrics: []string{"loss"}}, nil},
	{true, true, &transport.Consent{Terms: hash, Schema: json.RawMessage(`{"classes":10}`), Samples: 600, Tests: 100}, nil},
	{true, true, &transport.Sync{Holding: []transport.Holding{{Order: 7, Task: task, State: "kept"}}, Head: &head}, nil},
	{false, true, &transport.Duties{Messages: []string{`{"v":1}`}, More: true, Gone: "3-5", Head: &head}, nil},
	{false, true, &transport.Task{Order: 7, Base: 2, Index: 4, Samples: 600, Group: "large", Tag: "0.5", Params: json.RawMessage(`{"lr":0.1}`),
		Inputs: []transport.Tensors{{Name: "w", Ref: 1}, {Name: "c", Inline: []byte("safetensors")}}, Slice: &transport.Tensors{Name: "slice", Inline: []byte("[]")},
		Attached: &transport.Tensors{Name: "attached", Ref: 1},
		Barrier:  true}, []transport.Ref{blob}},
	{false, true, &transport.Tasks{Orders: "7-9,12", Places: "0,4-6", Task: transport.Task{Base: 2, Group: "large", Tag: "0.5", Params: json.RawMessage(`{"lr":0.1}`),
		Inputs: []transport.Tensors{{Name: "w", Ref: 1}}}}, []transport.Ref{blob}},
	{false, true, &transport.Seat{Index: 4, Samples: 600}, nil},
	{true, true, &transport.Progress{Order: 7, Part: .25}, nil},
	{true, true, &transport.Ask{Order: 7, Task: task, Blobs: []transport.Ref{blob}}, nil},
	{false, true, &transport.Permit{Granted: true, Retry: 0, Expires: time.Hour}, nil},
	{true, true, &transport.Result{Order: 7, Task: task, Weight: 600, Addends: []transport.Tensors{{Name: "w", Ref: 1}},
		Cover: &transport.Tensors{Name: "cover", Inline: []byte("[]")}, Attached: &transport.Tensors{Name: "attached", Inline: []byte("masked")}, Scalars: map[string]float64{"loss": .5}, Kernels: "cpu/avx2", Memory: "1/3"},
		[]transport.Ref{{Hash: hash, Bytes: 123456, Media: "safetensors", SealedTo: "UEXAMPLE"}}},
	{false, true, &transport.Verdict{Order: 7, Outcome: transport.Refused, Code: transport.CodeBlob, Reason: "blob 1 has 12 bytes, not 123456"}, nil},
	{false, true, &transport.Close{Folded: "0-41,43", Lost: "42", State: hash, Head: head, Last: true, Ref: 1, Final: 2}, []transport.Ref{blob, blob}},
	{false, true, &transport.Control{Action: "pause", Reason: "maintenance"}, nil},
	{true, true, &transport.Leave{Reason: "study over"}, nil},
	{false, false, &transport.Failure{Code: transport.CodeBusy, Message: "too many requests at once"}, nil},
	{true, false, &transport.Relay{URL: "https://region.example.org:8443", CA: hash, Here: []string{"clinic-b"}}, nil},
	{false, false, &transport.Delegation{Number: 2, Relay: "clinic-a", Key: member.Public().String(), URL: "https://learn.example.org:8443", CA: hash,
		Leaves: []transport.Leaf{{Name: "clinic-b", Key: coordinator.Public().String()}}}, nil},
	{true, true, &transport.Layout{Order: 7, Task: task, Again: true}, nil},
	{false, true, &transport.Folds{Folds: []transport.Fold{{Name: "w", Like: []transport.Shape{{Name: "fc.weight", Shape: []int{10, 784}}}, Indexed: true, Counts: true}},
		Ref: 0}, nil},
	{true, true, &transport.Partial{Sums: 1, Orders: "7-9"}, []transport.Ref{blob}},
	{false, true, &transport.Inclusion{Outcome: transport.Refused, Code: transport.CodeConflict, Reason: "order 7 was counted", Counted: "7", Out: "8"}, nil},
	{true, true, &transport.Receipt{Order: 7, Result: hash}, nil},
}

func (x example) envelope(t testing.TB) (identity.Key, transport.Envelope) {
	t.Helper()
	e := transport.Envelope{Fed: coordinator.Public().String(), Refs: x.refs}
	k := coordinator
	if x.up {
		k, e.From = member, "clinic-a"
	} else if x.body.Kind() != transport.KindClose && x.body.Kind() != transport.KindControl && x.body.Kind() != transport.KindTasks {
		e.To = "clinic-a"
	}
	if x.run {
		e.Run, e.Round, e.Step, e.Attempt = "digits", 3, "train", 1
	}
	if err := e.Put(x.body); err != nil {
		t.Fatal(err)
	}
	return k, e
}

func (x example) seal(t testing.TB) []byte {
	t.Helper()
	k, e := x.envelope(t)
	msg, err := transport.Seal(k, e)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// fresh returns an empty body of the same kind.
func fresh(b transport.Body) transport.Body {
	return reflect.New(reflect.TypeOf(b).Elem()).Interface().(transport.Body)
}

// TestGolden holds the bytes of every kind of message: they may only change together with the version of the protocol.
func TestGolden(t *testing.T) {
	kinds := map[transport.Kind]bool{}
	for _, x := range examples {
		kind := x.body.Kind()
		kinds[kind] = true
		t.Run(string(kind), func(t *testing.T) {
			k, e := x.envelope(t)
			msg := x.seal(t)
			got := fmt.Sprintf("signed by %s\ndigest %s\n\n%s\n", k.Public(), transport.DigestOf(msg), msg)
			path := filepath.Join("testdata", string(kind)+".golden")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("the bytes have changed (-update, if that is meant):\n%s", cmp.Diff(string(want), got))
			}
			opened, err := transport.Open(k.Public(), msg)
			if err != nil {
				t.Fatal(err)
			}
			e.V = transport.Version
			if d := cmp.Diff(e, opened); d != "" {
				t.Error(d)
			}
			peeked, err := transport.Peek(msg)
			if err != nil || !cmp.Equal(peeked, opened) {
				t.Errorf("peeked %+v, %v", peeked, err)
			}
			body := fresh(x.body)
			if err := opened.Decode(body); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(x.body, body); d != "" {
				t.Error(d)
			}
			v := reflect.ValueOf(x.body).Elem()
			for i := range v.NumField() {
				name := v.Type().Field(i).Name
				if v.Field(i).IsZero() && name != "Retry" && name != "Ref" && name != "Assist" && name != "Declined" && name != "Abstained" && name != "Failed" {
					t.Errorf("the example does not set %s", name)
				}
			}
		})
	}
	if got := slices.Sorted(maps.Keys(kinds)); !slices.Equal(got, transport.Kinds()) {
		t.Errorf("examples of %v; there are %v", got, transport.Kinds())
	}
}

// TestFlips changes every single byte of a message, to every kind of other byte, cuts it everywhere and lengthens it.
func TestFlips(t *testing.T) {
	msg := examples[6].seal(t)
	key := coordinator.Public()
	refused := func(what string, bad []byte) {
		t.Helper()
		_, err := transport.Open(key, bad)
		if !errors.Is(err, transport.ErrMalformed) && !errors.Is(err, transport.ErrSignature) && !errors.Is(err, transport.ErrVersion) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range msg {
		for _, x := range []byte{1, 0x20, 0x80, 0xff, msg[i] ^ '\n', msg[i] ^ '"'} {
			if x == 0 {
				continue
			}
			bad := bytes.Clone(msg)
			bad[i] ^= x
			refused(fmt.Sprintf("byte %d ^ %#x", i, x), bad)
		}
		refused(fmt.Sprintf("cut after %d", i), msg[:i])
		refused(fmt.Sprintf("cut before %d", i+1), msg[i+1:])
	}
	for _, more := range []string{"\n", " ", "}", "\x00", `,"x":1}`} {
		refused(fmt.Sprintf("%q behind", more), append(bytes.Clone(msg), more...))
		refused(fmt.Sprintf("%q before", more), append([]byte(more), msg...))
	}
	if _, err := transport.Open(member.Public(), msg); !errors.Is(err, transport.ErrSignature) {
		t.Errorf("another key: %v", err)
	}
	if _, err := transport.Open(identity.Public{}, msg); !errors.Is(err, transport.ErrSignature) {
		t.Errorf("no key: %v", err)
	}
}

// forge signs text as it is.
func forge(text string) []byte {
	sig := coordinator.Sign([]byte("cohort message 1\n" + text))
	return fmt.Appendf(nil, `%s,"sig":"%s"}`, text, base64.RawURLEncoding.EncodeToString(sig))
}

// TestForm signs what no Seal would write: a right signature does not make a message.
func TestForm(t *testing.T) {
	const rest = `"fed":"f","round":0,"from":"","to":"","kind":"control","attempt":0,"body":{"action":"stop"}`
	for _, c := range []struct {
		text string
		want error
	}{
		{`{"v":1,` + rest, nil},
		{`{"v":1, ` + rest + " \n", nil},
		{`{"v":1,` + rest + `,"refs":[]`, nil},
		{`{"v":1,` + rest + `,"refs":null`, nil},
		{`{"v":2,` + rest, transport.ErrVersion},
		{`{"v":2,"quite":"another","shape":0`, transport.ErrVersion},
		{`{"v":0,` + rest, transport.ErrMalformed},
		{`{"v":01,` + rest, transport.ErrMalformed},
		{`{"v":-1,` + rest, transport.ErrMalformed},
		{`{"v":1.0,` + rest, transport.ErrMalformed},
		{`{"v":99999999999,` + rest, transport.ErrMalformed},
		{`{"v":"1",` + rest, transport.ErrMalformed},
		{`{ "v":1,` + rest, transport.ErrMalformed},
		{`{` + rest + `,"v":1`, transport.ErrMalformed},
		{`{"v":1,"v":1,` + rest, transport.ErrMalformed},
		{`{"v":1,` + rest + `,"kind":"control"`, transport.ErrMalformed},
		{`{"v":1,` + rest + `,"Kind":"close"`, transport.ErrMalformed},
		{`{"v":1,` + strings.Replace(rest, "kind", "KIND", 1), transport.ErrMalformed},
		{`{"v":1,` + strings.Replace(rest, "kind", `\u006bind`, 1), transport.ErrMalformed},
		{`{"v":1,` + strings.Replace(rest, "kind", "\u212aind", 1), transport.ErrMalformed}, // KELVIN SIGN folds to k
		{`{"v":1,` + strings.Replace(rest, `"control"`, `"dance"`, 1), transport.ErrMalformed},
		{`{"v":1,` + strings.Replace(rest, `"attempt":0`, `"attempt":-1`, 1), transport.ErrMalformed},
		{`{"v":1,` + strings.Replace(rest, `"attempt":0`, `"attempt":null`, 1), transport.ErrMalformed},
		{`{"v":1,` + strings.Replace(rest, `"from":""`, `"from":null`, 1), transport.ErrMalformed},
		{`{"v":1,` + strings.Replace(rest, `"round":0`, `"round":1e2`, 1), transport.ErrMalformed},
		{`{"v":1,` + strings.Replace(rest, `{"action":"stop"}`, `null`, 1), transport.ErrMalformed},
		{`{"v":1,` + strings.Replace(rest, `{"action":"stop"}`, `[]`, 1), transport.ErrMalformed},
		{`{"v":1,` + strings.Replace(rest, `{"action":"stop"}`, `{"action":1,"action":2}`, 1), transport.ErrMalformed},
		{`{"v":1,` + strings.Replace(rest, `{"action":"stop"}`, `{"a":[{"b":1,"\u0062":2}]}`, 1), transport.ErrMalformed},
		{`{"v":1,` + strings.Replace(rest, `,"body":{"action":"stop"}`, ``, 1), transport.ErrMalformed},
		{`{"v":1,` + strings.Replace(rest, `"fed":"f"`, "\"fed\":\"\xff\"", 1), transport.ErrMalformed},
		{`{"v":1,` + rest + `,"more":1`, transport.ErrMalformed},
		{`{"v":1,` + rest + `,"sig":"x"`, transport.ErrMalformed},
		{`{"v":1,` + rest + `},{"v":1`, transport.ErrMalformed},
		{`{"v":1,` + rest + `,"refs":[{"hash":"` + hash.String() + `","bytes":1,"media":"","media":""}]`, transport.ErrMalformed},
		{`{"v":1,` + rest + `,"refs":[{"hash":"` + strings.ToUpper(hash.String()) + `","bytes":1,"media":""}]`, transport.ErrMalformed},
		{`{"v":1,` + rest + `,"refs":[{"hash":"` + hash.String() + `","bytes":-1,"media":""}]`, transport.ErrMalformed},
		{`{"v":1,` + rest + `,"refs":[{"hash":"abcd","bytes":1,"media":""}]`, transport.ErrMalformed},
		{`{"v":1,` + rest + `,"refs":[null]`, transport.ErrMalformed},
		{`{"v":1,` + rest + `,"refs":[` + strings.TrimSuffix(strings.Repeat(`{"bytes":1},`, 257), ",") + `]`, transport.ErrMalformed},
	} {
		if _, err := transport.Open(coordinator.Public(), forge(c.text)); !errors.Is(err, c.want) {
			t.Errorf("%s\n%v, not %v", c.text, err, c.want)
		}
	}
	for _, msg := range []string{"", "{", "{}", `{"v":1}`, `{"v":1,"sig":""}`, "[1]", strings.Repeat("x", 70000), strings.Repeat("[", 60000)} {
		if _, err := transport.Peek([]byte(msg)); err == nil {
			t.Errorf("%.20q is a message", msg)
		}
	}
}

// TestBodies decodes bodies that are refused.
func TestBodies(t *testing.T) {
	zero := `"` + strings.Repeat("0", 64) + `"`
	for _, c := range []struct {
		body transport.Body
		text string
	}{
		{&transport.Hello{}, `{}`},
		{&transport.Hello{}, `{"versions":[1],"versions":[2]}`},
		{&transport.Hello{}, `{"Versions":[1]}`},
		{&transport.Hello{}, `{"versions":[1],"heads":{"a":{"seq":1},"a":{"seq":2}}}`},
		{&transport.Hello{}, `{"versions":[1],"heads":{"a":{"seq":1},"\u0061":{"seq":2}}}`},
		{&transport.Hello{}, `{"versions":[1],"heads":{"a":{"Seq":1}}}`},
		{&transport.Hello{}, `{"versions":[1],"heads":{"a":null}}`},
		{&transport.Hello{}, `{"versions":[null]}`},
		{&transport.Terms{}, `{}`},
		{&transport.Terms{}, `{"recipe":"x","ref":1}`},
		{&transport.Terms{}, `{"ref":2}`},
		{&transport.Terms{}, `{"recipe":"x","schema":{"a":{"b":1,"b":1}}}`},
		{&transport.Consent{}, `{"samples":-1}`},
		{&transport.Consent{}, `{"samples":4294967296}`},
		{&transport.Consent{}, `{"terms":null}`},
		{&transport.Task{}, `{"order":-1}`},
		{&transport.Task{}, `{"inputs":[{"name":"w","ref":2}]}`},
		{&transport.Task{}, `{"inputs":[{"name":"w","ref":-1}]}`},
		{&transport.Task{}, `{"inputs":[{"name":"w","ref":1,"inline":"AAAA"}]}`},
		{&transport.Task{}, `{"inputs":[{"name":"w"},{"name":"w"}]}`},
		{&transport.Task{}, `{"slice":{"name":"s","ref":2}}`},
		{&transport.Task{}, `{"inputs":[{"name":"w","inline":"not base64"}]}`},
		{&transport.Tasks{}, `{"orders":"1-3","places":"1-2"}`},
		{&transport.Tasks{}, `{"orders":"3,1","places":"1-2"}`},
		{&transport.Tasks{}, `{"orders":"1-2","places":"2-1"}`},
		{&transport.Tasks{}, `{"orders":"1-2","places":"1,1"}`},
		{&transport.Tasks{}, `{"orders":"1","places":"-1"}`},
		{&transport.Tasks{}, `{"orders":"1","places":"+1"}`},
		{&transport.Tasks{}, `{"orders":"1,","places":"1-2"}`},
		{&transport.Tasks{}, `{"orders":"0-1073741824","places":"0-1073741824"}`},
		{&transport.Tasks{}, `{"orders":"1","places":"1","task":{"order":1}}`},
		{&transport.Tasks{}, `{"orders":"1","places":"1","task":{"base":-1}}`},
		{&transport.Tasks{}, `{"orders":"1","places":"1","task":{"inputs":[{"name":"w","ref":2}]}}`},
		{&transport.Tasks{}, `{"orders":"1","places":"1","task":null}`},
		{&transport.Seat{}, `{"index":-1}`},
		{&transport.Progress{}, `{"part":1.5}`},
		{&transport.Progress{}, `{"part":-0.5}`},
		{&transport.Ask{}, `{"blobs":[]}`},
		{&transport.Ask{}, `{"blobs":[{"hash":` + zero + `,"bytes":-1,"media":""}]}`},
		{&transport.Permit{}, `{"retry":-1}`},
		{&transport.Result{}, `{"order":-1}`},
		{&transport.Result{}, `{"abstained":true,"failed":"x"}`},
		{&transport.Result{}, `{"abstained":true,"addends":[{"name":"w"}]}`},
		{&transport.Result{}, `{"failed":"x","addends":[{"name":"w"}]}`},
		{&transport.Result{}, `{"weight":-1}`},
		{&transport.Result{}, `{"weight":1.5}`},
		{&transport.Result{}, `{"scalars":{"loss":1,"loss":2}}`},
		{&transport.Result{}, `{"scalars":{"loss":NaN}}`},
		{&transport.Result{}, `{"cover":{"name":"c","ref":9}}`},
		{&transport.Verdict{}, `{}`},
		{&transport.Verdict{}, `{"outcome":"perhaps"}`},
		{&transport.Close{}, `{"ref":2}`},
		{&transport.Close{}, `{"final":-1}`},
		{&transport.Leave{}, `{"reason":"x"} {}`},
		{&transport.Leave{}, `{"why":"x"}`},
		{&transport.Leave{}, `[]`},
	} {
		e := transport.Envelope{Kind: c.body.Kind(), Body: json.RawMessage(c.text), Refs: []transport.Ref{blob}}
		if err := e.Decode(fresh(c.body)); !errors.Is(err, transport.ErrMalformed) {
			t.Errorf("%s %s: %v", c.body.Kind(), c.text, err)
		}
	}
	e := transport.Envelope{Kind: transport.KindLeave, Body: json.RawMessage(`{}`)}
	if err := e.Decode(&transport.Hello{}); !errors.Is(err, transport.ErrMalformed) {
		t.Errorf("a leave as a hello: %v", err)
	}
	if err := e.Decode(&transport.Leave{}); err != nil {
		t.Error(err)
	}
}

func TestSealRefuses(t *testing.T) {
	good := transport.Envelope{Kind: transport.KindLeave, Body: json.RawMessage(`{}`)}
	for name, change := range map[string]func(*transport.Envelope){
		"kind":     func(e *transport.Envelope) { e.Kind = "dance" },
		"round":    func(e *transport.Envelope) { e.Round = -1 },
		"body":     func(e *transport.Envelope) { e.Body = json.RawMessage(`[]`) },
		"json":     func(e *transport.Envelope) { e.Body = json.RawMessage(`{"a"}`) },
		"utf-8":    func(e *transport.Envelope) { e.Body = json.RawMessage("{\"reason\":\"\xff\"}") },
		"refs":     func(e *transport.Envelope) { e.Refs = make([]transport.Ref, 257) },
		"negative": func(e *transport.Envelope) { e.Refs = []transport.Ref{{Bytes: -1}} },
	} {
		e := good
		change(&e)
		if _, err := transport.Seal(member, e); err == nil {
			t.Errorf("%s: sealed", name)
		}
	}
	if err := good.Put(&transport.Result{Scalars: map[string]float64{"loss": math.NaN()}}); err == nil {
		t.Error("NaN was encoded")
	}
}

// TestSize finds the exact limit.
func TestSize(t *testing.T) {
	e := transport.Envelope{Kind: transport.KindLeave}
	seal := func(n int) ([]byte, error) {
		if err := e.Put(&transport.Leave{Reason: strings.Repeat("x", n)}); err != nil {
			t.Fatal(err)
		}
		return transport.Seal(member, e)
	}
	one, err := seal(1)
	if err != nil {
		t.Fatal(err)
	}
	room := transport.MaxMessage - len(one) + 1
	msg, err := seal(room)
	if err != nil || len(msg) != transport.MaxMessage {
		t.Fatalf("%d bytes, %v", len(msg), err)
	}
	if _, err := transport.Open(member.Public(), msg); err != nil {
		t.Error(err)
	}
	for _, more := range []int{1, 2, 1000, transport.MaxMessage} {
		if _, err := seal(room + more); !errors.Is(err, transport.ErrTooLarge) {
			t.Errorf("%d bytes more: %v", more, err)
		}
	}
	if _, err := transport.Open(member.Public(), append(msg, ' ')); !errors.Is(err, transport.ErrTooLarge) {
		t.Errorf("open: %v", err)
	}
	if _, err := transport.Peek(append(msg, ' ')); !errors.Is(err, transport.ErrTooLarge) {
		t.Errorf("peek: %v", err)
	}
}

// TestRoundTrip: whatever Seal accepts, Open returns unchanged, to the owner of the right key only.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringN(0, 20, 60)
		e := transport.Envelope{
			Fed: word.Draw(t, "fed"), Run: word.Draw(t, "run"), Round: rapid.IntRange(0, 1<<40).Draw(t, "round"), Step: word.Draw(t, "step"),
			From: word.Draw(t, "from"), To: word.Draw(t, "to"), Attempt: rapid.IntRange(0, 9).Draw(t, "attempt"),
		}
		for range rapid.IntRange(0, 4).Draw(t, "refs") {
			r := transport.Ref{Bytes: rapid.Int64Min(0).Draw(t, "bytes"), Media: word.Draw(t, "media"), SealedTo: word.Draw(t, "sealed")}
			copy(r.Hash[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "hash"))
			e.Refs = append(e.Refs, r)
		}
		body := &transport.Result{
			Order: rapid.IntMin(0).Draw(t, "order"), Weight: rapid.Uint64().Draw(t, "weight"), Kernels: word.Draw(t, "kernels"), Memory: word.Draw(t, "memory"),
			Scalars: rapid.MapOfN(word, rapid.Float64Range(-1e300, 1e300), 1, 5).Draw(t, "scalars"),
		}
		for i := range rapid.IntRange(0, 3).Draw(t, "addends") {
			s := transport.Tensors{Name: fmt.Sprint(i, word.Draw(t, "name"))}
			if len(e.Refs) > 0 && rapid.Bool().Draw(t, "blob") {
				s.Ref = rapid.IntRange(1, len(e.Refs)).Draw(t, "ref")
			} else {
				s.Inline = rapid.SliceOfN(rapid.Byte(), 1, 3000).Draw(t, "inline")
			}
			body.Addends = append(body.Addends, s)
		}
		if err := e.Put(body); err != nil {
			t.Fatal(err)
		}
		msg, err := transport.Seal(member, e)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := transport.Seal(member, e); err != nil || !bytes.Equal(msg, again) {
			t.Fatalf("sealed again, other bytes: %v", err)
		}
		if bytes.ContainsRune(msg, '\n') {
			t.Fatal("more than one line")
		}
		before := bytes.Clone(msg)
		got, err := transport.Open(member.Public(), msg)
		if err != nil {
			t.Fatal(err)
		}
		e.V = transport.Version
		if d := cmp.Diff(e, got); d != "" {
			t.Fatal(d)
		}
		back := &transport.Result{}
		if err := got.Decode(back); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(body, back); d != "" {
			t.Fatal(d)
		}
		if !bytes.Equal(msg, before) {
			t.Fatal("Open changed the message")
		}
		if _, err := transport.Open(coordinator.Public(), msg); !errors.Is(err, transport.ErrSignature) {
			t.Fatalf("another key: %v", err)
		}
		i := rapid.IntRange(0, len(msg)-1).Draw(t, "i")
		msg[i] ^= rapid.ByteMin(1).Draw(t, "bits")
		if _, err := transport.Open(member.Public(), msg); err == nil {
			t.Fatalf("byte %d was changed", i)
		}
	})
}

func FuzzOpen(f *testing.F) {
	key := coordinator.Public()
	for _, x := range examples {
		f.Add(x.seal(f))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		e, err := transport.Open(key, msg)
		if err != nil {
			return
		}
		again, err := transport.Seal(coordinator, e)
		if err != nil {
			t.Fatalf("opened, but not sealed again: %v", err)
		}
		if got, err := transport.Open(key, again); err != nil || !cmp.Equal(e, got) {
			t.Fatalf("%+v\n%+v, %v", e, got, err)
		}
	})
}

func FuzzPeek(f *testing.F) {
	for _, x := range examples {
		f.Add(x.seal(f))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		e, err := transport.Peek(msg)
		if err != nil {
			return
		}
		if _, err := transport.Open(keyOf(3).Public(), msg); !errors.Is(err, transport.ErrSignature) {
			t.Fatalf("opened: %v", err)
		}
		again, err := transport.Seal(member, e)
		if errors.Is(err, transport.ErrTooLarge) {
			return // escapes may lengthen it
		}
		if err != nil {
			t.Fatalf("peeked at, but not sealed: %v", err)
		}
		got, err := transport.Open(member.Public(), again)
		if err != nil {
			t.Fatal(err)
		}
		if len(e.Refs) == 0 {
			e.Refs = nil
		}
		if d := cmp.Diff(e, got, cmp.Comparer(equalJSON)); d != "" {
			t.Fatal(d)
		}
	})
}

func FuzzDecode(f *testing.F) {
	for i, x := range examples {
		_, e := x.envelope(f)
		f.Add(uint8(i), len(e.Refs), []byte(e.Body))
	}
	f.Fuzz(func(t *testing.T, i uint8, refs int, text []byte) {
		x := examples[int(i)%len(examples)].body
		e := transport.Envelope{Kind: x.Kind(), Body: text, Refs: make([]transport.Ref, refs&0xff)}
		body := fresh(x)
		if err := e.Decode(body); err != nil {
			return
		}
		// What can be read can be written, and reads the same.
		if err := e.Put(body); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		again := fresh(x)
		if err := e.Decode(again); err != nil {
			t.Fatalf("%s, written as %s: %v", text, e.Body, err)
		}
		first := bytes.Clone(e.Body)
		if err := e.Put(again); err != nil || !bytes.Equal(first, e.Body) {
			t.Fatalf("%s, then %s, %v", first, e.Body, err)
		}
	})
}

// equalJSON compares raw values without white space and regardless of how strings are escaped.
func equalJSON(a, b json.RawMessage) bool {
	var x, y any
	da, db := json.NewDecoder(bytes.NewReader(a)), json.NewDecoder(bytes.NewReader(b))
	da.UseNumber()
	db.UseNumber()
	return da.Decode(&x) == nil && db.Decode(&y) == nil && reflect.DeepEqual(x, y)
}

func BenchmarkMessages(b *testing.B) {
	for _, size := range []int{0, 1 << 10, 32 << 10} {
		k, e := examples[10].envelope(b)
		e.Refs = nil
		body := &transport.Result{Order: 7, Task: task, Weight: 600, Addends: []transport.Tensors{{Name: "w", Inline: bytes.Repeat([]byte("w"), size)}}}
		if err := e.Put(body); err != nil {
			b.Fatal(err)
		}
		msg, err := transport.Seal(k, e)
		if err != nil {
			b.Fatal(err)
		}
		public := k.Public()
		run := func(name string, f func() error) {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(msg)))
				for b.Loop() {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		run("seal", func() error { _, err := transport.Seal(k, e); return err })
		run("open", func() error { _, err := transport.Open(public, msg); return err })
		run("peek", func() error { _, err := transport.Peek(msg); return err })
		run("decode", func() error { return e.Decode(&transport.Result{}) })
		run("sign", func() error { k.Sign(msg); return nil })
		sig := k.Sign(msg)
		run("verify", func() error {
			if !public.Verify(msg, sig) {
				return errors.New("wrong")
			}
			return nil
		})
	}
}
