package member

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/node/gate"
	"github.com/cohort-learning/cohort/transport"
)

// RotatePath is where a member asks for its key to be replaced.
const RotatePath = "/rotate"

// nextKeyName is the file of a key that is to replace the member's.
const nextKeyName = "key.new"

// RotateKey replaces the member's key by a new one, signed by both. It may be killed and repeated at any time: the new key is kept
// before the coordinator hears of it.
func (f *Folder) RotateKey(ctx context.Context) error {
	lock, err := journal.OS().Lock(filepath.Join(f.Dir, journal.LockName))
	if err != nil {
		return fmt.Errorf("replacing the key: the member must not be at work meanwhile: %w", err)
	}
	defer lock.Close()
	path := filepath.Join(f.Dir, nextKeyName)
	next, err := identity.LoadKey(path)
	if errors.Is(err, os.ErrNotExist) {
		if next, err = identity.NewKey(); err == nil {
			err = next.Save(path)
		}
	}
	if err != nil {
		return fmt.Errorf("new key: %w", err)
	}
	body, err := json.Marshal(identity.SignRotation(f.Card.Federation, f.Card.Name, f.Key, next))
	if err != nil {
		return err
	}
	err = f.postRotation(ctx, f.Key, body)
	if errors.Is(err, transport.ErrDenied) { // it may have been replaced already, and the answer was lost
		err = f.postRotation(ctx, next, body)
	}
	if err != nil {
		return fmt.Errorf("replacing the key: %w", err)
	}
	if err := os.Rename(path, filepath.Join(f.Dir, KeyName)); err != nil {
		return fmt.Errorf("replacing the key: %w", err)
	}
	f.Key = next
	return nil
}

func (f *Folder) postRotation(ctx context.Context, k identity.Key, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := identity.HTTPClient(k, f.Card.URL, identity.NewTrust(f.Card.CA), nil)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.Card.URL+RotatePath, bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
	var no gate.Refusal
	switch {
	case res.StatusCode == http.StatusNoContent:
		return nil
	case json.Unmarshal(text, &no) == nil && no.Code == gate.NotMember:
		return transport.ErrDenied
	}
	return fmt.Errorf("%s: %s", res.Status, bytes.TrimSpace(text))
}

// learn asks the coordinator for the fingerprints by which it is recognised, and keeps them if the list is newer than the one
// that is known. The federation's signature makes it good, so it may be asked of a coordinator that is not recognised.
func (f *Folder) learn(ctx context.Context, trust *identity.Trust) error {
	pins, err := gate.FetchPins(ctx, f.Card.URL, f.Card.Federation, f.Card.Pins, nil)
	if err != nil {
		return err
	}
	if pins.Serial <= f.Card.Pins {
		return nil
	}
	now := pins.At(time.Now())
	trust.Set(now...)
	f.Card.Pins, f.Card.CA = pins.Serial, identity.Fingerprint{}
	if len(now) > 0 {
		f.Card.CA = now[0]
	}
	return f.Save()
}
