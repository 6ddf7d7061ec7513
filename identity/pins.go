package identity

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Pins is how members learn a new fingerprint: a list that the federation's key
// signs, so that it may be fetched over a connection to a server that the member
// does not recognise yet.
type Pins struct {
	Serial uint64 `json:"serial"` // grows with every change
	Pins   []Pin  `json:"pins"`   // empty: the operating system's authorities
}

// maxPins bounds a signed list in bytes.
const maxPins = 16 << 10

const pinsPurpose = "cohort/pins/1"

// ErrOldPins says that a list of fingerprints is older than the one known.
var ErrOldPins = errors.New("the list of fingerprints is older than the one known")

// Sign returns the list as the line
//
//	{"of":LIST,"sig":"SIGNATURE"}
//
// whose signature, in base64, covers the bytes of LIST.
func (p Pins) Sign(k Key) []byte {
	of, err := json.Marshal(p)
	if err != nil {
		panic("identity: encode pins: " + err.Error())
	}
	return sealed(of, k.Sign(message(pinsPurpose, of)))
}

// OpenPins checks a signed list and returns it. A member that knows the list
// with the number known refuses an older one ([ErrOldPins]).
func OpenPins(data []byte, federation Public, known uint64) (Pins, error) {
	var p Pins
	if len(data) > maxPins {
		return p, fmt.Errorf("signed fingerprints: %d bytes are more than %d", len(data), maxPins)
	}
	of, sig, ok := unseal(bytes.TrimSuffix(data, []byte("\n")))
	if !ok {
		return p, errors.New("signed fingerprints: not in the form of a signed list")
	}
	if !federation.Verify(message(pinsPurpose, of), sig) {
		return p, fmt.Errorf("signed fingerprints: the signature is not that of the federation %s", federation)
	}
	if err := strict(of, &p); err != nil {
		return p, fmt.Errorf("signed fingerprints: %w", err)
	}
	if p.Serial < known {
		return p, fmt.Errorf("%w: number %d after %d", ErrOldPins, p.Serial, known)
	}
	return p, nil
}

// At returns the fingerprints that are valid at the time now, and always the
// first: an empty list would stand for the operating system's authorities.
func (p Pins) At(now time.Time) []Fingerprint {
	var f []Fingerprint
	for i, pin := range p.Pins {
		if i == 0 || now.Before(pin.Until) {
			f = append(f, pin.Fingerprint)
		}
	}
	return f
}

const (
	sealHead = `{"of":`
	sealMid  = `,"sig":"`
	sealTail = `"}`
)

// sigLen is the length of a signature in base64.
var sigLen = base64.StdEncoding.EncodedLen(64)

// sealed joins JSON and its signature. There is exactly one way to write it, so
// that the signed bytes are found without parsing.
func sealed(of, sig []byte) []byte {
	b := append([]byte(sealHead), of...)
	b = append(b, sealMid...)
	b = base64.StdEncoding.AppendEncode(b, sig)
	return append(b, sealTail...)
}

func unseal(b []byte) (of, sig []byte, ok bool) {
	b, ok1 := bytes.CutPrefix(b, []byte(sealHead))
	b, ok2 := bytes.CutSuffix(b, []byte(sealTail))
	n := len(b) - sigLen
	if !ok1 || !ok2 || n < 0 {
		return nil, nil, false
	}
	of, ok = bytes.CutSuffix(b[:n], []byte(sealMid))
	if !ok {
		return nil, nil, false
	}
	sig, err := base64.StdEncoding.Strict().AppendDecode(nil, b[n:])
	return of, sig, err == nil
}

// strict decodes one JSON value and refuses members that are not known, and
// anything that is not written as this program writes it.
func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	again, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, data) {
		return errors.New("not in the form in which this version writes it")
	}
	return nil
}
