package secagg

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
)

// Messages have one encoding each: fields in order, numbers little-endian, texts and lists after their length. Readers refuse
// whatever they would not have written.

type writer struct{ b []byte }

func (w *writer) u8(v byte)      { w.b = append(w.b, v) }
func (w *writer) u32(v int)      { w.b = binary.LittleEndian.AppendUint32(w.b, uint32(v)) }
func (w *writer) u64(v uint64)   { w.b = binary.LittleEndian.AppendUint64(w.b, v) }
func (w *writer) raw(b []byte)   { w.b = append(w.b, b...) }
func (w *writer) key(k [32]byte) { w.b = append(w.b, k[:]...) }
func (w *writer) bytes(b []byte) {
	w.b = binary.LittleEndian.AppendUint16(w.b, uint16(len(b)))
	w.raw(b)
}
func (w *writer) text(s string) { w.bytes([]byte(s)) }
func (w *writer) names(n []string) {
	w.u32(len(n))
	for _, s := range n {
		w.text(s)
	}
}

type reader struct {
	b   []byte
	bad string
}

func (r *reader) fail(why string) {
	if r.bad == "" {
		r.bad = why
	}
	r.b = nil
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.fail("ends too early")
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) u8() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u32() int {
	if b := r.take(4); b != nil {
		return int(binary.LittleEndian.Uint32(b))
	}
	return 0
}

func (r *reader) key() (k [32]byte) {
	copy(k[:], r.take(32))
	return k
}

func (r *reader) bytes() []byte {
	b := r.take(2)
	if b == nil {
		return nil
	}
	return append([]byte(nil), r.take(int(binary.LittleEndian.Uint16(b)))...)
}

func (r *reader) text() string { return string(r.bytes()) }

// count reads the length of a list of items of at least size bytes.
func (r *reader) count(size int) int {
	n := r.u32()
	if n > len(r.b)/size {
		r.fail("list longer than its message")
		return 0
	}
	return n
}

func (r *reader) names() []string {
	var out []string
	for range r.count(2) {
		out = append(out, r.text())
	}
	return out
}

func (r *reader) version(want byte) {
	if v := r.u8(); r.bad == "" && v != want {
		r.fail("of another version")
	}
}

// end returns an error unless everything was read and nothing is left.
func (r *reader) end(what string) error {
	if r.bad == "" && len(r.b) > 0 {
		r.fail("has bytes after its end")
	}
	if r.bad != "" {
		return refuse(ErrMalformed, "", "%s %s", what, r.bad)
	}
	return nil
}

// nameFits reports whether a member's name can stand in a message.
func nameFits(s string) bool { return s != "" && len(s) <= math.MaxUint8 }

const wireVersion = 1

// Advert is what a member offers for one session: public keys and a commitment to its self mask, under its signature.
type Advert struct {
	Name    string
	Holding int      // which of Params.Holdings it holds
	Channel [32]byte // X25519, for boxes
	Mask    [32]byte // X25519, for pair masks
	Self    [32]byte // commitment to b_u, so that a wrong share of it is noticed
	Sig     []byte
}

func (a *Advert) write(w *writer) {
	w.text(a.Name)
	w.u32(a.Holding)
	w.key(a.Channel)
	w.key(a.Mask)
	w.key(a.Self)
}

func (a *Advert) read(r *reader) {
	a.Name, a.Holding, a.Channel, a.Mask, a.Self = r.text(), r.u32(), r.key(), r.key(), r.key()
}

// signed returns the bytes under an advert's signature: terms, which name the session, and content.
func (a *Advert) signed(terms [32]byte) []byte {
	w := writer{b: []byte("fedsecagg/v1/advert")}
	w.key(terms)
	a.write(&w)
	return w.b
}

// MarshalBinary encodes a.
func (a Advert) MarshalBinary() ([]byte, error) { return Adverts{a}.MarshalBinary() }

// UnmarshalBinary decodes what MarshalBinary wrote.
func (a *Advert) UnmarshalBinary(b []byte) error {
	var l Adverts
	if err := l.UnmarshalBinary(b); err != nil {
		return err
	}
	if len(l) != 1 {
		return refuse(ErrMalformed, "", "%d adverts: expected 1", len(l))
	}
	*a = l[0]
	return nil
}

// Adverts is the list U1, the answer to the step of keys.
type Adverts []Advert

func (l Adverts) sorted() bool {
	return slices.IsSortedFunc(l, func(a, b Advert) int { return strings.Compare(a.Name, b.Name) })
}

// MarshalBinary encodes the list.
func (l Adverts) MarshalBinary() ([]byte, error) {
	var w writer
	w.u8(wireVersion)
	w.u32(len(l))
	for i := range l {
		l[i].write(&w)
		w.bytes(l[i].Sig)
	}
	return w.b, nil
}

// UnmarshalBinary decodes what MarshalBinary wrote.
func (l *Adverts) UnmarshalBinary(b []byte) error {
	r := reader{b: b}
	r.version(wireVersion)
	out := make(Adverts, r.count(2+4+3*32+2))
	for i := range out {
		out[i].read(&r)
		out[i].Sig = r.bytes()
	}
	*l = out
	return r.end("list of adverts")
}

// Box is shares for one peer, sealed: the server carries it and cannot read it.
type Box struct {
	From, To string
	Sealed   []byte
}

// Boxes are those of one sender, or those for one receiver.
type Boxes []Box

// MarshalBinary encodes the list.
func (l Boxes) MarshalBinary() ([]byte, error) {
	var w writer
	w.u8(wireVersion)
	w.u32(len(l))
	for _, b := range l {
		w.text(b.From)
		w.text(b.To)
		w.bytes(b.Sealed)
	}
	return w.b, nil
}

// UnmarshalBinary decodes what MarshalBinary wrote.
func (l *Boxes) UnmarshalBinary(b []byte) error {
	r := reader{b: b}
	r.version(wireVersion)
	out := make(Boxes, r.count(6))
	for i := range out {
		out[i] = Box{r.text(), r.text(), r.bytes()}
	}
	*l = out
	return r.end("list of boxes")
}

// Survivors is the list U3 in ascending order: the names whose vectors are in the sum.
type Survivors []string

// MarshalBinary encodes the list.
func (l Survivors) MarshalBinary() ([]byte, error) {
	var w writer
	w.u8(wireVersion)
	w.names(l)
	return w.b, nil
}

// UnmarshalBinary decodes what MarshalBinary wrote.
func (l *Survivors) UnmarshalBinary(b []byte) error {
	r := reader{b: b}
	r.version(wireVersion)
	*l = r.names()
	return r.end("list of survivors")
}

// Confirmation is a member's signature of the one list of survivors that it will help to unmask.
type Confirmation struct {
	From string
	List [32]byte // digest of session and list
	Sig  []byte
}

// MarshalBinary encodes c.
func (c Confirmation) MarshalBinary() ([]byte, error) { return Confirmations{c}.MarshalBinary() }

// UnmarshalBinary decodes what MarshalBinary wrote.
func (c *Confirmation) UnmarshalBinary(b []byte) error {
	var l Confirmations
	if err := l.UnmarshalBinary(b); err != nil {
		return err
	}
	if len(l) != 1 {
		return refuse(ErrMalformed, "", "%d confirmations: expected 1", len(l))
	}
	*c = l[0]
	return nil
}

// Confirmations are those of U4.
type Confirmations []Confirmation

// MarshalBinary encodes the list.
func (l Confirmations) MarshalBinary() ([]byte, error) {
	var w writer
	w.u8(wireVersion)
	w.u32(len(l))
	for _, c := range l {
		w.text(c.From)
		w.key(c.List)
		w.bytes(c.Sig)
	}
	return w.b, nil
}

// UnmarshalBinary decodes what MarshalBinary wrote.
func (l *Confirmations) UnmarshalBinary(b []byte) error {
	r := reader{b: b}
	r.version(wireVersion)
	out := make(Confirmations, r.count(2+32+2))
	for i := range out {
		out[i] = Confirmation{r.text(), r.key(), r.bytes()}
	}
	*l = out
	return r.end("list of confirmations")
}

// Kind says of which of a peer's two secrets a share is.
type Kind byte

const (
	SelfMask Kind = 1 + iota // b_v, of a survivor
	MaskKey                  // the private key s_v, of one who was lost
)

// Revealed is one share that a member gives up.
type Revealed struct {
	Of    string
	Kind  Kind
	Share [32]byte
}

// Reveal is a member's last message: one share for each neighbour that has sent it a box, and for itself.
type Reveal struct {
	From   string
	Shares []Revealed
}

// MarshalBinary encodes v.
func (v Reveal) MarshalBinary() ([]byte, error) {
	var w writer
	w.u8(wireVersion)
	w.text(v.From)
	w.u32(len(v.Shares))
	for _, s := range v.Shares {
		w.text(s.Of)
		w.u8(byte(s.Kind))
		w.key(s.Share)
	}
	return w.b, nil
}

// UnmarshalBinary decodes what MarshalBinary wrote.
func (v *Reveal) UnmarshalBinary(b []byte) error {
	r := reader{b: b}
	r.version(wireVersion)
	out := Reveal{From: r.text()}
	out.Shares = make([]Revealed, r.count(2+1+32))
	for i := range out.Shares {
		out.Shares[i] = Revealed{r.text(), Kind(r.u8()), r.key()}
		if k := out.Shares[i].Kind; r.bad == "" && k != SelfMask && k != MaskKey {
			r.fail("has a share of an unknown kind")
		}
	}
	*v = out
	return r.end("reveal")
}
