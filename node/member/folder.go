package member

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/dataset/table"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	dpledger "github.com/cohort-learning/cohort/secure/dp/ledger"
)

// Names in a member's folder.
const (
	CardName  = "member.json"
	KeyName   = "key"
	StoreName = "store"
	stateName = "state"
	modelName = "models"
)

// cardVersion is the version of member.json.
const cardVersion = 1

// Card is the content of member.json: who the member is, and how it recognises its federation.
type Card struct {
	Version    int                  `json:"version"`
	Name       string               `json:"name"`
	URL        string               `json:"url"`
	CA         identity.Fingerprint `json:"ca"`
	Federation identity.Public      `json:"federation"`
	Pins       uint64               `json:"pins,omitempty"` // number of the newest list of fingerprints that the member has seen
	Enrolled   bool                 `json:"enrolled"`       // whether the coordinator has admitted the member's key

	Home Home `json:"home,omitzero"` // where the coordinator itself is, if URL is a relay's

	// As they were given last, so that the member can be started again without them.
	Data     string   `json:"data,omitempty"`     // path of the data
	Exec     []string `json:"exec,omitempty"`     // program that trains
	Limits   Limits   `json:"limits,omitzero"`    // of that program
	Examples int      `json:"examples,omitempty"` // declared for data that only that program can read
	Table    Table    `json:"table,omitzero"`     // how Data are read where they are columns of one's own

	Peers  string          `json:"peers,omitempty"`  // file of other members' keys, exchanged without the coordinator
	Ledger string          `json:"ledger,omitempty"` // folder of the privacy ledgers
	Budget dpledger.Budget `json:"budget,omitzero"`  // of the data; what is 0 is as the policy says
}

// Table is how a member takes part in runs of organisations with columns of their own.
type Table struct {
	table.Spec
	Learner learner.Spec `json:"learner,omitzero"`
	Secret  string       `json:"secret,omitempty"` // file with what keys are hashed with
	Align   string       `json:"align,omitempty"`  // where keys are in doubt: what explains residuals while rows are aligned
}

// ByBlocks reports whether rows are known by blocks alone, and are to be aligned.
func (t Table) ByBlocks() bool { return t.Key == "" && t.Align != "" && len(t.Blocks) > 0 }

// Limits are those of a program that trains, see [program.Options]; what is zero is the default.
type Limits struct {
	Env    []string      `json:"env,omitempty"`
	User   string        `json:"user,omitempty"`
	Time   time.Duration `json:"time,omitempty"`
	Memory int64         `json:"memory,omitempty"`
	Disk   int64         `json:"disk,omitempty"`
}

// Folder is where a member lives.
type Folder struct {
	Dir  string
	Card Card
	Key  identity.Key
}

// ErrNoMember says that a folder holds no member.
var ErrNoMember = errors.New("no member lives here")

// OpenFolder opens the folder of a member. Its error is [ErrNoMember] if there is none.
func OpenFolder(dir string) (*Folder, error) {
	path := filepath.Join(dir, CardName)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoMember)
	}
	if err != nil {
		return nil, err
	}
	f := &Folder{Dir: dir}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&f.Card); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if f.Card.Version != cardVersion {
		return nil, fmt.Errorf("%s has version %d; this program reads version %d", path, f.Card.Version, cardVersion)
	}
	if err := identity.CheckName(f.Card.Name); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if f.Key, err = identity.LoadKey(filepath.Join(dir, KeyName)); err != nil {
		return nil, err
	}
	return f, nil
}

// NewFolder makes the folder of a member that a token invites, with a key of its own, not yet enrolled. A folder that was
// made for the same invitation before is taken over with its key.
func NewFolder(dir string, t identity.Token) (*Folder, error) {
	if old, err := OpenFolder(dir); err == nil {
		if old.Card.Name != t.Name || old.Card.Federation != t.Federation {
			return nil, fmt.Errorf("%s belongs to the member %q of another federation or name; choose another --dir for %q", dir, old.Card.Name, t.Name)
		}
		if !old.Card.Enrolled { // the invitation may be a newer one
			old.Card.URL, old.Card.CA = t.URL, t.CA
		}
		return old, nil
	} else if !errors.Is(err, ErrNoMember) {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, KeyName)
	key, err := identity.LoadKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		if key, err = identity.NewKey(); err == nil {
			err = key.Save(path)
		}
	}
	if err != nil {
		return nil, err
	}
	f := &Folder{Dir: dir, Key: key, Card: Card{Version: cardVersion, Name: t.Name, URL: t.URL, CA: t.CA, Federation: t.Federation}}
	return f, f.Save()
}

// Save writes member.json.
func (f *Folder) Save() error {
	return journal.WriteFile(journal.OS(), filepath.Join(f.Dir, CardName), func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(f.Card)
	})
}

// writeNew writes a file that does not exist yet, whole or not at all.
func writeNew(path string, text []byte) error {
	return journal.WriteFile(journal.OS(), path, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
}
