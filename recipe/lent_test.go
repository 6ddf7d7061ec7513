package recipe

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/cohort-learning/cohort/simulation/worker"
	"github.com/cohort-learning/cohort/weights"
)

// A worker makes the same clients of what travels as the simulation makes of its files: the run comes out to the same bits.
func TestLentClients(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "words.txt")
	if err := os.WriteFile(text, []byte(strings.Repeat("the cat sat on the mat and the dog saw the cat run .\n", 30)), 0o644); err != nil {
		t.Fatal(err)
	}
	pictures := "rounds: 2\ndata: {name: glyphs, size: 8, train: 60, test: 20}\npartition: {name: noise, sigma: 0.1, clients: 4}\n" +
		"round: {fraction: 1}\nrun: {engine: go}\n"
	for name, c := range map[string]struct {
		recipe string
		start  bool
	}{
		"heterofl":  {recipe: pictures + "method: heterofl\nmodel: {name: cnn, widths: [4, 8]}\noptions: {mode: a1-c1}\n"},
		"lg-fedavg": {recipe: pictures + "method: lg-fedavg\nmodel: {name: mlp, hidden: [8]}\n", start: true},
		"text": {recipe: "method: fedavg\nrounds: 1\ndata: {name: text, path: " + text + ", test_path: " + text + ", tokens: 8, text_rows: 6, test_rows: 3}\npartition: {name: iid, clients: 3}\n" +
			"model: {name: transformer, embedding: 8, heads: 2, layers: 1, feed_forward: 8}\nrun: {engine: go}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Parse(name, []byte(c.recipe))
			if err != nil {
				t.Fatal(err)
			}
			if c.start {
				plan, err := r.Plan(t.Context(), "")
				if err != nil {
					t.Fatal(err)
				}
				w, err := plan.Problem.Initial(99, 1)
				if err != nil {
					t.Fatal(err)
				}
				r.Model.From = filepath.Join(dir, "start.safetensors")
				if err := weights.WriteFile(r.Model.From, w, nil); err != nil {
					t.Fatal(err)
				}
			}
			plan, err := r.Plan(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			e, info, err := r.Engine()
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			job, err := plan.Job(e)
			if err != nil {
				t.Fatal(err)
			}
			want, err := job.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			m := worker.Machine{Engine: info.Engine, Kernels: info.Path}
			h, err := worker.Listen(worker.Options{Listen: "127.0.0.1:0", Machine: m, Run: plan.Lent()})
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				if err := worker.Work(t.Context(), h.Address(), worker.Lent{Machine: m, Name: "w", Threads: 2, Engine: e, Build: LentClients}); err != nil {
					t.Error(err)
				}
			})
			job.Workers, job.Elsewhere = -1, h.Lend
			got, err := job.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got.Digest() != want.Digest() {
				t.Errorf("digest %s, want %s", got.Digest(), want.Digest())
			}
			if err := h.Close(); err != nil {
				t.Error(err)
			}
			wg.Wait()
		})
	}
}

func TestAddWorkers(t *testing.T) {
	dir := t.TempDir()
	if all, err := Workers(dir); err != nil || all != nil {
		t.Errorf("a run without workers has %v, %v", all, err)
	}
	if err := AddWorkers(dir, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, WorkersName)); err == nil {
		t.Error("a run without workers has a file of them")
	}
	for _, part := range [][]worker.Tally{
		{{Name: "b", Threads: 2, Clients: 3, Given: 1, Sent: 10, Received: 20}, {Name: "a", Threads: 1}},
		{{Name: "b", Threads: 4, Clients: 5, Given: 2, Sent: 100, Received: 200}, {Name: "c", Threads: 1}},
	} {
		if err := AddWorkers(dir, part); err != nil {
			t.Fatal(err)
		}
	}
	want := []worker.Tally{{Name: "b", Threads: 4, Clients: 8, Given: 3, Sent: 110, Received: 220}, {Name: "a", Threads: 1}, {Name: "c", Threads: 1}}
	if all, err := Workers(dir); err != nil || !reflect.DeepEqual(all, want) {
		t.Errorf("%+v, %v, want %+v", all, err, want)
	}
	for text, want := range map[string]string{`{"schema":2}`: "schema 2, this program knows 1", "no": WorkersName} {
		if err := os.WriteFile(filepath.Join(dir, WorkersName), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Workers(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
