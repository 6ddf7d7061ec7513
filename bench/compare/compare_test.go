package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCasesAreSound(t *testing.T) {
	for name, cs := range map[string][]Case{
		"standard": standardCases(), "quick": quickCases(), "random": randomCases(30, 1), "random 2": randomCases(30, 2),
	} {
		seen := map[string]bool{}
		for _, c := range cs {
			key := c.Name + c.Kind
			if c.Kind == "train" {
				key += string(rune(c.Batch))
			}
			if seen[key] && name != "random" && name != "random 2" {
				t.Errorf("%s: %q twice", name, c.Name)
			}
			seen[key] = true
			if !(c.Flops() > 0) {
				t.Errorf("%s: %q has %g operations", name, c.Name, c.Flops())
			}
			if c.Kind == "conv" && (c.out(c.H, c.KH) < 1 || c.out(c.W, c.KW) < 1 || c.Cin%c.Groups != 0 || c.Cout%c.Groups != 0) {
				t.Errorf("%s: %+v has no output", name, c)
			}
		}
	}
	if d := cmp.Diff(randomCases(30, 7), randomCases(30, 7)); d != "" {
		t.Error("random cases change from call to call:", d)
	}
	if cmp.Equal(randomCases(30, 7), randomCases(30, 8)) {
		t.Error("the seed has no effect")
	}
}

func TestFlops(t *testing.T) {
	if f := gemm(2, 3, 5, false, true).Flops(); f != 60 {
		t.Errorf("2×3×5: %g, want 60", f)
	}
	// 2·(784·200 + 200·10) for an example, three times, for ten.
	if f := step("mlp", "mlp", 1, 10).Flops(); f != 60*(784*200+200*10) {
		t.Errorf("mlp: %g, want %d", f, 60*(784*200+200*10))
	}
	// 4×4 outputs of 9 taps, 3 inputs and 8 outputs, two images: 2·16·9·3·8·2, and three times that.
	c := conv(2, 8, 3, 8, 3, 2, true)
	if f := c.Flops(); f != 3*13824 {
		t.Errorf("%s: %g, want %d", c.Name, f, 3*13824)
	}
}

// TestModels holds the number of parameters to those of the PyTorch modules.
func TestModels(t *testing.T) {
	for _, c := range []struct {
		c    Case
		want int
	}{
		{step("", "mlp", 1, 10), 784*200 + 200 + 200*10 + 10},
		{step("", "cnn", 1, 10), 1556874},
		{step("", "resnet", 0.25, 10), 603802},
		{step("", "wrn", 1, 10), 1467610},
		{step("", "lstm", 1, 20), 10000*650 + 2*(2*2600*650+2*2600) + 650*10000 + 10000},
	} {
		m, batch, err := trainCase(c.c)
		if err != nil {
			t.Fatal(err)
		}
		if got := int(m.Cost().Params); got != c.want {
			t.Errorf("%s has %d parameters, want %d", m.Name, got, c.want)
		}
		if batch.N != c.c.Batch || len(batch.X)+len(batch.Tokens) == 0 {
			t.Errorf("%s: batch of %d with %d numbers and %d tokens", m.Name, batch.N, len(batch.X), len(batch.Tokens))
		}
	}
}

// TestServe runs small cases of each kind through the protocol.
func TestServe(t *testing.T) {
	cases := []Case{gemm(3, 4, 5, true, true), conv(2, 6, 2, 4, 3, 2, true), conv(1, 5, 1, 2, 3, 1, false), step("", "mlp", 1, 2)}
	var in, out bytes.Buffer
	enc := json.NewEncoder(&in)
	send := func(q request) {
		if err := enc.Encode(q); err != nil {
			t.Fatal(err)
		}
	}
	send(request{Op: "hello", Threads: 2})
	for i := range cases {
		send(request{Op: "setup", Case: &cases[i]})
		send(request{Op: "run"})
	}
	send(request{Op: "memory"})
	send(request{Op: "drop"})
	send(request{Op: "run"})
	send(request{Op: "setup", Case: &Case{Kind: "nonsense"}})
	if err := serve(&in, &out, ""); err != nil {
		t.Fatal(err)
	}
	var replies []reply
	for dec := json.NewDecoder(&out); dec.More(); {
		var r reply
		if err := dec.Decode(&r); err != nil {
			t.Fatal(err)
		}
		replies = append(replies, r)
	}
	if len(replies) != 5+2*len(cases) {
		t.Fatalf("%d replies, want %d", len(replies), 5+2*len(cases))
	}
	for i := range cases {
		setup, run := replies[1+2*i], replies[2+2*i]
		if setup.Error != "" || run.Error != "" {
			t.Errorf("%s: %q %q", cases[i].Name, setup.Error, run.Error)
		}
		if run.Steps < 1 || run.Best > run.Spent {
			t.Errorf("%s: %+v", cases[i].Name, run)
		}
	}
	n := len(replies)
	if _, err := os.Stat("/proc/self/status"); err == nil && (replies[n-4].RSSMiB < 1 || replies[n-4].PeakMiB < 1) {
		t.Errorf("resident memory %+v", replies[n-4])
	}
	if replies[n-2].Error == "" || replies[n-1].Error == "" {
		t.Errorf("running without a case gave %+v, a nonsense case %+v", replies[n-2], replies[n-1])
	}
}

func TestReport(t *testing.T) {
	times := [2][]float64{{1, 2, 4}, {2, 2, 2}} // ratios 2, 1, ½
	var zero [2]reply
	zero[0].FirstMS, zero[1].FirstMS = 10, 30
	zero[0].PeakMiB, zero[1].PeakMiB = 50, 100
	r := &report{Schema: 1, CPU: "some", Load: "0.0 0.0 0.0", PeakGFLOPS: 8e-9, Ours: engine{Name: "Cohort"},
		Peer: engine{Name: "PyTorch", Details: map[string]string{"threads": "2"}}}
	g := gemm(1, 2, 2, false, false)
	r.add(rowsOf(g, times, times, zero, zero))
	r.add(rowsOf(step("mlp", "mlp", 1, 10), times, times, zero, zero))
	if r.Rows[0].Ratio != 1 || r.Rows[0].Ours != 4e-9 || r.Rows[0].Best != 2 {
		t.Errorf("product: %+v", r.Rows[0])
	}
	if r.Rows[2].Ratio != 3 || r.Rows[3].Ratio != 2 || math.Abs(r.GeoMean-1) > 1e-12 {
		t.Errorf("first step %g, memory %g, mean %g", r.Rows[2].Ratio, r.Rows[3].Ratio, r.GeoMean)
	}
	var text strings.Builder
	r.header(&text)
	r.print(&text, r.Rows)
	r.summary(&text)
	for _, want := range []string{"PyTorch: threads 2", "sgemm 1×2×2", "1.00×", "50", "geometric mean of 2 speed ratios 1.00×; 0 below 1"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, &text)
		}
	}
	js, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(js), `"rows":[{"name":"sgemm 1×2×2","ours":4e-9,`) {
		t.Errorf("JSON: %s", js)
	}
}

func TestOptions(t *testing.T) {
	for _, bad := range [][]string{{"-rounds", "4"}, {"-shapes", "odd"}, {"-only", "("}, {"-threads", "0"}, {"extra"}} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%v is accepted", bad)
		}
	}
	o, err := parse([]string{"-quick", "-only", "^train mlp"})
	if err != nil {
		t.Fatal(err)
	}
	if cs := o.cases(); len(cs) != 1 || cs[0].Model != "mlp" {
		t.Errorf("-only selects %v", cs)
	}
}

func TestFill(t *testing.T) {
	o, err := parse([]string{"-shapes", "random", "-seed", "7", "-into", "x.md", "-python", "elsewhere"})
	if err != nil {
		t.Fatal(err)
	}
	const doc = "a\n<!-- compare -->\nkeep\n<!-- end -->\n<!-- compare -shapes random -seed 7 -->\nold\n<!-- end -->\nz\n"
	got, err := fill(doc, o.marker(), "row 1\nrow 2\n\n", time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	want := "a\n<!-- compare -->\nkeep\n<!-- end -->\n<!-- compare -shapes random -seed 7 -->\n" +
		"`go run ./bench/compare -shapes random -seed 7`, 2026-01-02:\n\n```text\nrow 1\nrow 2\n```\n<!-- end -->\nz\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := fill(doc, "compare -memory", "", time.Time{}); err == nil {
		t.Error("no error for a document without the place")
	}
}
