package systemtest

import (
	"bytes"
	"context"
	"encoding/base64"
	endian "encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/private"
	"github.com/cohort-learning/cohort/node/member"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/weights"
)

func init() {
	roles["recorder"] = func(args []string) error {
		return disguised(args, func(l *liar) {
			l.wire = &wire{dir: filepath.Join(args[1], "wire")}
			l.blobs = &copier{Courier: l.blobs, wire: l.wire}
		})
	}
}

// wire keeps what went between a member and the coordinator, as it is once TLS is off.
type wire struct {
	dir string
	mu  sync.Mutex
	n   int
}

func (w *wire) note(what string, b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n++
	err := os.MkdirAll(w.dir, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(w.dir, fmt.Sprintf("%05d-%s", w.n, what)), b, 0o644)
	}
	if err != nil {
		panic(err)
	}
}

// copier notes blobs on their way.
type copier struct {
	member.Courier
	wire *wire
}

func (c *copier) copy(what string, s blob.Store, h blob.Hash) error {
	r, err := blob.Open(context.Background(), s, h)
	if err != nil {
		return err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err == nil {
		c.wire.note(what, b)
	}
	return err
}

// Upload implements [member.Courier].
func (c *copier) Upload(ctx context.Context, from blob.Store, h blob.Hash) error {
	if err := c.copy("upload", from, h); err != nil {
		return err
	}
	return c.Courier.Upload(ctx, from, h)
}

// Download implements [member.Courier].
func (c *copier) Download(ctx context.Context, to blob.Store, h blob.Hash) error {
	if err := c.Courier.Download(ctx, to, h); err != nil {
		return err
	}
	return c.copy("download", to, h)
}

// Receive implements [transport.Link].
func (l *liar) Receive(handle func([]byte)) {
	l.Link.Receive(func(msg []byte) {
		if l.wire != nil {
			l.wire.note("push", msg)
		}
		handle(msg)
	})
}

// attic keeps every file that there ever is in a folder, also those that are soon deleted: by hard links, and by copies where a file that
// is deleted may be written over by the next.
type attic struct {
	from, to string
	stop     chan struct{}
	done     sync.WaitGroup
	seen     map[string]bool
}

func newAttic(t *testing.T, from, to string) *attic {
	t.Helper()
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	a := &attic{from: from, to: to, stop: make(chan struct{}), seen: map[string]bool{}}
	a.done.Go(func() {
		for {
			a.look()
			select {
			case <-a.stop:
				a.look()
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	return a
}

func (a *attic) look() {
	_ = filepath.WalkDir(a.from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // files come and go
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		id := fmt.Sprint(identityOf(info), path)
		keep := os.Link
		if object.MatchString(path) {
			keep = copyFile
		}
		if !a.seen[id] && keep(path, filepath.Join(a.to, fmt.Sprintf("%06d-%s", len(a.seen), filepath.Base(path)))) == nil {
			a.seen[id] = true
		}
		return nil
	})
}

// object matches the files of objects in a store of blobs, which are whole when they are there.
var object = regexp.MustCompile(`/blobs/[0-9a-f]/[0-9a-f]{64}$`)

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

func (a *attic) close() { close(a.stop); a.done.Wait() }

// needle is what only one member should know.
type needle struct {
	member string
	what   string // "update", "model" or "words"
	round  int
	bytes  []byte
	step   int // between windows
}

const window = 64 // bytes that are no coincidence

// secretsOf computes what every member of a recipe with plain sums has to say: what it learned in every round, in float32, and the
// words that would be masked.
func secretsOf(t *testing.T, path string) (all []needle) {
	t.Helper()
	r, err := recipe.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := r.Plan(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	e, _, err := r.Engine()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	job, err := plan.Job(e)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	job.Algorithm = tapped{job.Algorithm.(*private.Secure), func(n needle) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, n)
	}}
	if _, err := job.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return all
}

// tapped is a method of plain sums whose clients tell what they compute.
type tapped struct {
	*private.Secure
	tell func(needle)
}

// Client implements [federated.Algorithm].
func (a tapped) Client() federated.Client {
	return outside{a.Secure.Around(inside{a.Secure.Algorithm.Client(), a.tell}), a.tell}
}

// inside tells what the method's own client answers.
type inside struct {
	federated.Client
	tell func(needle)
}

// Run implements [federated.Client].
func (c inside) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	r, err := c.Client.Run(ctx, at, t, keep)
	for name, set := range r.Addends {
		for tensor, x := range set.All() {
			if len(x.F32) < window/4 {
				continue
			}
			c.tell(needle{at.Member.Name, "update", t.Round, bytesOf(x.F32), 4})
			if w, ok := t.Sets[name].Get(tensor); ok && len(w.F32) == len(x.F32) {
				model := slices.Clone(w.F32)
				for i := range model {
					model[i] += x.F32[i]
				}
				c.tell(needle{at.Member.Name, "model", t.Round, bytesOf(model), 4})
			}
		}
	}
	return r, err
}

func bytesOf(x []float32) []byte {
	b, err := endian.Append(nil, endian.LittleEndian, x)
	if err != nil {
		panic(err)
	}
	return b
}

// outside tells the words that are summed.
type outside struct {
	federated.Client
	tell func(needle)
}

// Run implements [federated.Client].
func (c outside) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	r, err := c.Client.Run(ctx, at, t, keep)
	if len(r.Attached) > 0 {
		c.tell(needle{at.Member.Name, "words", t.Round, r.Attached[18:], 8}) // after the header of a vector
	}
	return r, err
}

// search looks for windows of needles that say something, and returns how many were found of which member and kind.
type search struct {
	needles []needle
	at      map[uint64][][2]int // of the first eight bytes of a window: needle and offset
	windows int
}

func newSearch(needles []needle) *search {
	s := &search{needles: needles, at: map[uint64][][2]int{}}
	for i, n := range needles {
		for at := 0; at+window <= len(n.bytes); at += n.step {
			w := n.bytes[at : at+window]
			if dull(w, n.step) {
				continue
			}
			k := endian.LittleEndian.Uint64(w)
			s.at[k] = append(s.at[k], [2]int{i, at})
			s.windows++
		}
	}
	return s
}

// dull reports whether a window has numbers that come about by chance: zeros, or few different ones.
func dull(w []byte, step int) bool {
	different := map[string]bool{}
	for at := 0; at < len(w); at += step {
		different[string(w[at:at+step])] = true
	}
	return len(different) < len(w)/step*3/4
}

var coded = regexp.MustCompile(`[A-Za-z0-9+/_-]{88,}`)

// in searches bytes as they are and what stands in them in base64.
func (s *search) in(b []byte, found map[string]int) {
	for at := 0; at+window <= len(b); at++ {
		for _, p := range s.at[endian.LittleEndian.Uint64(b[at:])] {
			n := &s.needles[p[0]]
			if bytes.Equal(b[at:at+window], n.bytes[p[1]:p[1]+window]) {
				found[n.member+" "+n.what]++
			}
		}
	}
	for _, text := range coded.FindAll(b, -1) {
		text = bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("-"), []byte("+")), []byte("_"), []byte("/"))
		text = text[:len(text)/4*4]
		if raw, err := base64.StdEncoding.DecodeString(string(text)); err == nil && len(raw) > window {
			s.in(raw, found)
		}
	}
}

// files searches all files in a folder.
func (s *search) files(t *testing.T, dir string, found map[string]int) (n int, bytes int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		n, bytes = n+1, bytes+int64(len(b))
		s.in(b, found)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n, bytes
}

// TestTranscript searches everything that the coordinator of an honest secure run ever sees or writes for what a single member
// has computed: what members send and get, without TLS, its journal, spools, blobs, checkpoints and logs, also those files that
// are deleted. As a check of the search, the same in runs in the open, and of sums without masks, finds every member.
func TestTranscript(t *testing.T) {
	brief(t)
	text := strings.NewReplacer(", deadline: 6s", "", "clients: 10", "clients: 8", "train: 300", "train: 240").Replace(averaged)
	var plain *search
	for _, sums := range []string{"plain", "none", "masked"} {
		t.Run(sums, func(t *testing.T) {
			text := strings.Replace(text, "sums: masked", "sums: "+sums, 1)
			f := newFederation(t, strings.Replace(text, "secure: {sums: none}\n", "", 1), 8)
			if plain == nil {
				plain = newSearch(secretsOf(t, f.recipe))
			}
			for _, m := range f.members {
				m.role = "recorder"
			}
			a := newAttic(t, filepath.Join(f.dir, "server"), filepath.Join(f.dir, "attic"))
			f.open()
			f.joinAll()
			f.finish()
			a.close()
			f.verify()
			there, sent := map[string]int{}, map[string]int{}
			files, size := plain.files(t, filepath.Join(f.dir, "server"), there)
			n, more := plain.files(t, filepath.Join(f.dir, "attic"), there)
			plain.in([]byte(f.coordOut.String()), there)
			messages, bytes := 0, int64(0)
			for _, m := range f.members {
				k, b := plain.files(t, filepath.Join(m.dir, "wire"), sent)
				messages, bytes = messages+k, bytes+b
			}
			f.say("%d windows of %d bytes, searched in %d messages and blobs (%d kB) and %d files of the coordinator (%d kB), of which %d were deleted",
				plain.windows, window, messages, bytes/1000, files+n, (size+more)/1000, n-files)
			spools := 0
			for path := range a.seen {
				if strings.HasSuffix(path, ".spool") {
					spools++
				}
			}
			if messages < 200 || n < files || spools < 2 {
				t.Errorf("%d messages, %d files, %d of them spools: is everything searched?", messages, n, spools)
			}
			if sums == "masked" {
				if len(there)+len(sent) > 0 {
					t.Errorf("at the coordinator are %v, on the wire %v", there, sent)
				}
				return
			}
			kind := map[string]string{"plain": " words", "none": " update"}[sums] // the first round is the same with and without rounding
			for _, m := range f.members {
				for _, found := range []map[string]int{there, sent} {
					if found[m.name+kind] == 0 {
						t.Errorf("what %s says in the open is not found: %v", m.name, found)
					}
				}
			}
		})
	}
}
