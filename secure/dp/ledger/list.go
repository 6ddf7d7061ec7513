package ledger

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/secure/dp"
)

// DigestOf returns the digest of the data at a path: of the bytes of a file, whatever its name, or of all regular files in a
// folder by their names within it. Files and folders whose names begin with a dot are left out.
func DigestOf(ctx context.Context, path string) (d Digest, err error) {
	root, err := filepath.EvalSymlinks(path)
	if err != nil {
		return d, err
	}
	info, err := os.Stat(root)
	if err != nil {
		return d, err
	}
	if !info.IsDir() {
		return digestFile(ctx, root)
	}
	all := sha256.New()
	var size [8]byte
	err = filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name != root && e.Name()[0] == '.':
			if e.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if info, err := os.Stat(name); err != nil {
			return err
		} else if !info.Mode().IsRegular() {
			return nil
		}
		one, err := digestFile(ctx, name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		binary.BigEndian.PutUint64(size[:], uint64(len(rel)))
		all.Write(size[:])
		io.WriteString(all, rel)
		all.Write(one[:])
		return nil
	})
	return Digest(all.Sum(nil)), err
}

func digestFile(ctx context.Context, path string) (d Digest, err error) {
	f, err := os.Open(path)
	if err != nil {
		return d, err
	}
	defer f.Close()
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for ctx.Err() == nil {
		n, err := f.Read(buf)
		h.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return Digest(h.Sum(nil)), nil
		}
		if err != nil {
			return d, err
		}
	}
	return d, ctx.Err()
}

// digests returns the digests of the ledgers in a folder.
func digests(root string, fsys journal.FS) (out []Digest, err error) {
	entries, err := fsys.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("privacy ledgers: %w", err)
	}
	for _, e := range entries {
		if d, err := ParseDigest(e.Name()); err == nil && e.IsDir() { // other files are none of ours
			out = append(out, d)
		}
	}
	return out, nil
}

// List returns the ledgers in a folder that hold anything, by label and digest; none if the folder is not there. An error names
// the first file that cannot be counted.
func List(root string, o Options) ([]*Ledger, error) {
	found, err := digests(root, o.fs())
	if err != nil {
		return nil, err
	}
	var out []*Ledger
	for _, d := range found {
		l, err := Open(root, d, "", o)
		if err != nil {
			return nil, err
		}
		if _, begun := l.s.head(); begun {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b *Ledger) int {
		return cmp.Or(slices.Compare(a.s.labels, b.s.labels), slices.Compare(a.data[:], b.data[:]))
	})
	return out, nil
}

// Summary is what a ledger says.
type Summary struct {
	Data      Digest
	Labels    []string
	Path      string
	Head      journal.Head
	Budget    Budget
	Delta     float64 // at which everything below is
	Epsilon   float64 // spent, +Inf if nothing bounds it
	By        dp.Accountant
	Rounds    int        // charged, those of relatives included
	Runs      []Run      // of this data set, in the order in which they began
	Relatives []Relative // whose rounds count here too
}

// Run is what one run took. The ε of runs do not add up to that of the data: together they cost less.
type Run struct {
	Coordinator Coordinator
	Run         string
	Members     []string // in whose names
	Mechanisms  []dp.Mechanism
	Trusts      []string // who could have left the noise out
	Rounds      int
	Amplified   int // of them
	Epsilon     float64
	First, Last time.Time
}

// Relative is another ledger under one of the labels: the data as they were at another time.
type Relative struct {
	Data   Digest
	Rounds int
}

// Summary returns what the ledger says at δ.
func (l *Ledger) Summary(delta float64) (Summary, error) {
	epsilon, by, err := l.Spent(delta)
	if err != nil {
		return Summary{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.s
	out := Summary{Data: l.data, Labels: l.labels(), Path: l.Path(), Budget: l.budget(), Delta: delta, Epsilon: epsilon, By: by, Rounds: l.spent().rounds}
	out.Head, _ = s.head()
	type who struct{ key, run string }
	at := map[who]int{}
	var costs []*cost
	for _, e := range s.own {
		w := who{e.Coordinator.Key, e.Run}
		i, ok := at[w]
		if !ok {
			i = len(out.Runs)
			at[w] = i
			out.Runs = append(out.Runs, Run{Coordinator: e.Coordinator, Run: e.Run, First: e.Time})
			costs = append(costs, newCost())
		}
		r := &out.Runs[i]
		r.Rounds, r.Last = r.Rounds+1, e.Time
		if e.Amplified {
			r.Amplified++
		}
		r.Members = with(r.Members, e.Member)
		r.Mechanisms = with(r.Mechanisms, e.Terms.Mechanism)
		if e.Terms.Trusts != "" {
			r.Trusts = with(r.Trusts, e.Terms.Trusts)
		}
		costs[i].add(e)
	}
	for i, c := range costs {
		out.Runs[i].Epsilon, _ = c.epsilon(delta)
	}
	for _, r := range l.relatives() {
		out.Relatives = append(out.Relatives, Relative{r.data, r.spent.rounds})
	}
	return out, nil
}

func with[T comparable](list []T, v T) []T {
	if slices.Contains(list, v) {
		return list
	}
	return append(list, v)
}
