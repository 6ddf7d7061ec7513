package federated

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Vault keeps what a member must not do twice differently, whatever it is asked and however often it starts again. Its methods
// are safe for concurrent use.
type Vault interface {
	// Once returns the value under a name. If there is none, it makes one, and returns when that is durable. After [Vault.Erase]
	// it fails with [ErrErased]. The caller must not change the value.
	Once(name string, make func() ([]byte, error)) ([]byte, error)
	// Erase forgets all values whose names begin with a prefix, which ends in a slash, but not that they are taken.
	Erase(prefix string) error
	// Names lists the values that are not erased, sorted.
	Names() ([]string, error)
}

// ErrErased is returned by [Vault.Once] for a value that was there and is erased.
var ErrErased = errors.New("it was done before, and its secrets are erased")

// Peers is what a member knows of the others without having to believe the server.
type Peers interface {
	// Sign signs a message as the member itself.
	Sign(msg []byte) []byte
	// Verify returns nil if the message carries the signature of the member of that name.
	Verify(name string, msg, sig []byte) error
	// Pinned reports whether the key of that member was exchanged without the server.
	Pinned(name string) bool
	// Insists reports whether the member takes part only where enough of the others are pinned.
	Insists() bool
}

// NewVault returns a vault in memory, for simulations.
func NewVault() Vault { return &vault{values: map[string][]byte{}, erased: map[string]bool{}} }

type vault struct {
	mu     sync.Mutex
	values map[string][]byte
	erased map[string]bool // prefixes
}

func (v *vault) Once(name string, make func() ([]byte, error)) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if b, ok := v.values[name]; ok {
		return b, nil
	}
	for i := range name {
		if name[i] == '/' && v.erased[name[:i+1]] {
			return nil, fmt.Errorf("%s: %w", name, ErrErased)
		}
	}
	b, err := make()
	if err == nil {
		v.values[name] = b
	}
	return b, err
}

func (v *vault) Erase(prefix string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.erased[prefix] = true
	maps.DeleteFunc(v.values, func(name string, _ []byte) bool { return strings.HasPrefix(name, prefix) })
	return nil
}

func (v *vault) Names() ([]string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Sorted(maps.Keys(v.values)), nil
}

// Acquainted returns what the member of a name knows of the others in a simulation: keys that follow from names, and everybody
// has them from everybody.
func Acquainted(name string) Peers { return acquainted(name) }

type acquainted string

func (acquainted) key(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("cohort simulated member\x00" + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func (a acquainted) Sign(msg []byte) []byte { return ed25519.Sign(a.key(string(a)), msg) }

func (a acquainted) Verify(name string, msg, sig []byte) error {
	if !ed25519.Verify(a.key(name).Public().(ed25519.PublicKey), msg, sig) {
		return fmt.Errorf("the signature is not that of %s", name)
	}
	return nil
}

func (acquainted) Pinned(string) bool { return true }
func (acquainted) Insists() bool      { return false }

// Vaults are those of many members of a simulation, by index. The zero value is ready; it is safe for concurrent use.
type Vaults struct {
	mu  sync.Mutex
	all map[int]Vault
}

// Of returns a member's vault, which takes no room before there is something in it.
func (v *Vaults) Of(member int) Vault { return drawer{v, member} }

type drawer struct {
	of     *Vaults
	member int
}

func (d drawer) open() Vault {
	d.of.mu.Lock()
	defer d.of.mu.Unlock()
	if d.of.all == nil {
		d.of.all = map[int]Vault{}
	}
	if d.of.all[d.member] == nil {
		d.of.all[d.member] = NewVault()
	}
	return d.of.all[d.member]
}

func (d drawer) Once(name string, make func() ([]byte, error)) ([]byte, error) {
	return d.open().Once(name, make)
}
func (d drawer) Erase(prefix string) error { return d.open().Erase(prefix) }
func (d drawer) Names() ([]string, error)  { return d.open().Names() }

// Reset empties all of them, as when the members begin anew.
func (v *Vaults) Reset() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.all = nil
}
