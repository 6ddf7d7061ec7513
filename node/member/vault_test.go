package member

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
	"pgregory.net/rapid"
)

func vaultIn(t *testing.T) (*vault, string) {
	dir := filepath.Join(t.TempDir(), "vault")
	return &vault{fs: faultfs.New(journal.OS()), dir: dir}, dir
}

func value(text string) func() ([]byte, error) {
	return func() ([]byte, error) { return []byte(text), nil }
}

// TestVaultModel compares a vault, opened anew at any time, with the one in memory that simulations have.
func TestVaultModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "vault")
		if err != nil {
			rt.Fatal(err)
		}
		disk := faultfs.New(journal.OS())
		v, model := &vault{fs: disk, dir: dir}, federated.NewVault()
		name := rapid.SampledFrom([]string{"a", "s/1/keys", "s/1/mask", "s/2/keys", "s/2/b/c", "s/2/b/d", "t/keys"})
		prefix := rapid.SampledFrom([]string{"s/1/", "s/2/", "s/2/b/", "t/"})
		made := 0
		rt.Repeat(map[string]func(*rapid.T){
			"once": func(rt *rapid.T) {
				n := name.Draw(rt, "name")
				made++
				b := []byte(fmt.Sprint(made))
				got, err1 := v.Once(n, func() ([]byte, error) { return b, nil })
				want, err2 := model.Once(n, func() ([]byte, error) { return b, nil })
				if !bytes.Equal(got, want) || errors.Is(err1, federated.ErrErased) != errors.Is(err2, federated.ErrErased) || (err1 == nil) != (err2 == nil) {
					rt.Fatalf("%s: %q, %v; want %q, %v", n, got, err1, want, err2)
				}
			},
			"fail": func(rt *rapid.T) {
				n, cause := name.Draw(rt, "name"), errors.New("no")
				got, err1 := v.Once(n, func() ([]byte, error) { return nil, cause })
				want, err2 := model.Once(n, func() ([]byte, error) { return nil, cause })
				if !bytes.Equal(got, want) || errors.Is(err1, cause) != errors.Is(err2, cause) {
					rt.Fatalf("%s: %q, %v; want %q, %v", n, got, err1, want, err2)
				}
			},
			"erase": func(rt *rapid.T) {
				p := prefix.Draw(rt, "prefix")
				if err := errors.Join(v.Erase(p), model.Erase(p)); err != nil {
					rt.Fatal(err)
				}
			},
			"open": func(*rapid.T) { v = &vault{fs: disk, dir: dir} },
			"": func(rt *rapid.T) {
				got, err := v.Names()
				want, _ := model.Names()
				if err != nil || !slices.Equal(got, want) {
					rt.Fatalf("names %v, %v; want %v", got, err, want)
				}
			},
		})
	})
}

func TestVaultNames(t *testing.T) {
	v, dir := vaultIn(t)
	for _, name := range []string{"", "/", "a/", "/a", "a//b", "..", "../a", "a/../b", ".a", "a/.b", "A", "a b", "a\\b", "a\x00", "ä",
		"a.value", "a.value/b", "a.erased/b", "a/b.tmp", strings.Repeat("a", 201)} {
		if _, err := v.Once(name, value("x")); err == nil || !strings.Contains(err.Error(), "cannot be called") {
			t.Errorf("%.30q: %v", name, err)
		}
		if err := v.Erase(name + "/"); err == nil {
			t.Errorf("erasing %.30q/", name)
		}
	}
	for _, prefix := range []string{"", "a", "a/b"} {
		if err := v.Erase(prefix); err == nil || !strings.Contains(err.Error(), "no prefix") {
			t.Errorf("erasing %q: %v", prefix, err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("bad names have made a folder: %v", err)
	}
	// What a session of secure sums uses.
	for _, name := range []string{"secure/12.train/keys", "secure/12.train.rows/keys", "secure/12.eval/unmask"} {
		if b, err := v.Once(name, value(name)); err != nil || string(b) != name {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	info, err := os.Stat(filepath.Join(dir, "secure", "12.train", "keys.value"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of a secret: %v, %v", info.Mode(), err)
	}
}

// TestVaultGoroutines makes the same values in two goroutines: each is made once.
func TestVaultGoroutines(t *testing.T) {
	v, _ := vaultIn(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	made, got := map[string]int{}, map[string]map[string]bool{}
	for k := range 2 {
		wg.Go(func() {
			for i := range 40 {
				name := fmt.Sprintf("s/%d/keys", i/4)
				b, err := v.Once(name, func() ([]byte, error) {
					mu.Lock()
					defer mu.Unlock()
					made[name]++
					return fmt.Appendf(nil, "%d of %d", i, k), nil
				})
				if errors.Is(err, federated.ErrErased) {
					continue
				}
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				if got[name] == nil {
					got[name] = map[string]bool{}
				}
				got[name][string(b)] = true
				mu.Unlock()
				if i%4 == 3 && i < 20 {
					if err := v.Erase(fmt.Sprintf("s/%d/", i/4)); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	for name, n := range made {
		if n != 1 || len(got[name]) > 1 {
			t.Errorf("%s was made %d times, as %v", name, n, slices.Collect(maps.Keys(got[name])))
		}
	}
}

// history is what a vault is asked for in the tests of crashes, and what it has said in all lives.
type history struct {
	said   map[string]string // values that were returned
	erased map[string]bool   // prefixes that were, and told so
	lives  int
}

// live asks for everything, in an order in which sessions follow each other, until the disk crashes.
func (h *history) live(v *vault) error {
	h.lives++
	once := func(name string) error {
		made := fmt.Sprintf("%s in life %d", name, h.lives)
		b, err := v.Once(name, value(made))
		prefix := name[:strings.LastIndex(name, "/")+1]
		switch {
		case errors.Is(err, federated.ErrErased) && (h.erased[prefix] || h.lives > 1):
			return nil
		case err != nil:
			return err
		case h.erased[prefix]:
			return fmt.Errorf("%s was erased, and now is %q", name, b)
		case h.said[name] != "" && h.said[name] != string(b):
			return fmt.Errorf("%s was %q, and now is %q", name, h.said[name], b)
		}
		h.said[name] = string(b)
		return nil
	}
	for _, do := range []func() error{
		func() error { return once("s/1/keys") },
		func() error { return once("s/1/mask") },
		func() error { return once("s/2/keys") },
		func() error {
			names, err := v.Names()
			for _, n := range names {
				if prefix := n[:strings.LastIndex(n, "/")+1]; err == nil && h.erased[prefix] {
					err = fmt.Errorf("%s was erased, and is listed", n)
				}
			}
			if err == nil {
				err = v.Erase("s/1/")
			}
			if err == nil {
				h.erased["s/1/"] = true
			}
			return err
		},
		func() error { return once("s/1/keys") },
		func() error { return once("s/2/mask") },
		func() error { return once("s/2/keys") },
	} {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// TestVaultCrashes loses power, or is killed, at every operation of the disk, before it, torn, not yet synced and after it, and
// twice in a row: a value that was returned is returned again and no other, and what was erased stays taken.
func TestVaultCrashes(t *testing.T) {
	fresh := func() *history { return &history{map[string]string{}, map[string]bool{}, 0} }
	disk := faultfs.New(journal.OS())
	if err := fresh().live(&vault{fs: disk, dir: filepath.Join(t.TempDir(), "vault")}); err != nil {
		t.Fatal(err)
	}
	events, tried := disk.Events(), 0
	crash := func(t *testing.T, h *history, dir string, rule faultfs.Rule) bool {
		disk := faultfs.New(journal.OS())
		disk.Add(rule)
		err := h.live(&vault{fs: disk, dir: dir})
		if disk.Crashed() != errors.Is(err, faultfs.ErrCrashed) || err != nil && !disk.Crashed() {
			t.Fatalf("%+v: %v", rule, err)
		}
		return disk.Crashed()
	}
	for i, e := range events {
		for _, kind := range []faultfs.Crash{faultfs.PowerLoss, faultfs.PowerLossAfterMetadata, faultfs.Kill} {
			for _, after := range []bool{false, true} {
				for _, part := range slices.Compact([]int{0, e.Bytes / 2}) {
					h, dir := fresh(), filepath.Join(t.TempDir(), "vault")
					rule := faultfs.Rule{N: i + 1, Crash: kind, After: after, Part: part}
					if !crash(t, h, dir, rule) {
						t.Fatalf("%+v: no crash at %+v", rule, e)
					}
					crash(t, h, dir, faultfs.Rule{N: 1 + i%5, Crash: faultfs.PowerLoss, After: !after})
					tried++
					disk := faultfs.New(journal.OS())
					v := &vault{fs: disk, dir: dir}
					if err := h.live(v); err != nil {
						t.Fatalf("%+v at %+v: %v", rule, e, err)
					}
					for name, b := range map[string]string{"s/2/keys": h.said["s/2/keys"], "s/2/mask": h.said["s/2/mask"]} {
						if got, err := v.Once(name, value("another")); err != nil || string(got) != b {
							t.Fatalf("%+v at %+v: %s is %q, %v; it was %q", rule, e, name, got, err, b)
						}
					}
					if err := disk.Crash(faultfs.PowerLoss); err != nil {
						t.Fatal(err)
					}
					if left := filesUnder(t, filepath.Join(dir, "s", "1")); len(left) > 0 {
						t.Fatalf("%+v at %+v: secrets are left: %v", rule, e, left)
					}
				}
			}
		}
	}
	t.Logf("%d operations, %d ways", len(events), tried)
}

func filesUnder(t *testing.T, dir string) (names []string) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestVaultKilledThenPowerLost kills the process before the entry of a value's folder is durable, and then loses power: what the
// second process returned must be there for the third.
func TestVaultKilledThenPowerLost(t *testing.T) {
	for n := 1; ; n++ {
		disk, dir := faultfs.New(journal.OS()), filepath.Join(t.TempDir(), "vault")
		killed := errors.New("killed")
		disk.Add(faultfs.Rule{Op: faultfs.SyncDir, N: n, Err: killed})
		_, err := (&vault{fs: disk, dir: dir}).Once("s/1/keys", value("first"))
		if err == nil {
			if n < 4 {
				t.Errorf("a new value has synced %d folders", n-1)
			}
			return
		}
		if local := (*localError)(nil); !errors.As(err, &local) || !errors.Is(err, killed) {
			t.Fatalf("a fault of the disk is told as %v", err)
		}
		got, err := (&vault{fs: disk, dir: dir}).Once("s/1/keys", value("second"))
		if err != nil {
			t.Fatal(err)
		}
		if err := disk.Crash(faultfs.PowerLoss); err != nil {
			t.Fatal(err)
		}
		again, err := (&vault{fs: journal.OS(), dir: dir}).Once("s/1/keys", value("third"))
		if err != nil || !bytes.Equal(got, again) {
			t.Errorf("killed at folder %d: it was %q, and is %q after a loss of power (%v)", n, got, again, err)
		}
	}
}
