package weights

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

// The safetensors format: 8 bytes that hold the length N of the header (little-endian), N bytes of JSON
//
//	{"__metadata__":{"key":"value",…},"name":{"dtype":"F32","shape":[2,3],"data_offsets":[begin,end]},…}
//
// and the elements, row-major and little-endian. Offsets count from the end of the header; together the tensors fill the
// rest of the file without hole or overlap. (https://github.com/huggingface/safetensors, "Format".)

const (
	// maxHeader is the longest header that is read or written, the limit of the format's reference reader.
	maxHeader = 100_000_000
	// maxRank is the greatest number of axes that is read: what the usual array libraries can hold.
	maxRank = 64
	// metaKey is the header's key for text about the file; no tensor can have this name.
	metaKey = "__metadata__"
	// chunk is the size of the buffer through which elements are read and written.
	chunk = 1 << 16
)

// Write writes s as a safetensors file: tensors in the order of s, elements as F32 or F64. The same set and meta give the
// same bytes. It fails, before writing anything, on names that the format cannot hold (not UTF-8, or "__metadata__").
func Write(w io.Writer, s Set, meta map[string]string) error {
	head, err := encodeHeader(s, meta)
	if err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	if _, err := w.Write(head); err != nil {
		return fmt.Errorf("safetensors: write header: %w", err)
	}
	buf := make([]byte, chunk)
	for name, t := range s.All() {
		if err := writeElements(w, t, buf); err != nil {
			return fmt.Errorf("safetensors: write tensor %s: %w", quote(name), err)
		}
	}
	return nil
}

// encodeHeader returns the length, the JSON and the spaces that make the elements start at a multiple of 8.
func encodeHeader(s Set, meta map[string]string) ([]byte, error) {
	b := bytes.NewBuffer(make([]byte, 8, 8+64+96*s.Len()))
	b.WriteByte('{')
	if len(meta) > 0 {
		for k, v := range meta {
			if !utf8.ValidString(k) || !utf8.ValidString(v) {
				return nil, fmt.Errorf("metadata %s is not UTF-8", quote(k))
			}
		}
		b.WriteString(`"` + metaKey + `":`)
		writeJSON(b, meta)
	}
	var at int64
	for name, t := range s.All() {
		if name == metaKey || !utf8.ValidString(name) {
			return nil, fmt.Errorf("%s cannot be the name of a tensor", quote(name))
		}
		if err := t.valid(); err != nil {
			return nil, fmt.Errorf("tensor %s: %w", quote(name), err)
		}
		if len(t.Shape) > maxRank {
			return nil, fmt.Errorf("tensor %s has %d axes, the limit is %d", quote(name), len(t.Shape), maxRank)
		}
		if b.Len() > 9 {
			b.WriteByte(',')
		}
		writeJSON(b, name)
		end := at + int64(t.Len())*int64(t.DType().Size())
		b.WriteString(`:{"dtype":"` + map[DType]string{Float32: "F32", Float64: "F64"}[t.DType()] + `","shape":[`)
		for i, d := range t.Shape {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(strconv.Itoa(d))
		}
		fmt.Fprintf(b, `],"data_offsets":[%d,%d]}`, at, end)
		at = end
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	head := b.Bytes()
	if len(head)-8 > maxHeader {
		return nil, fmt.Errorf("header of %d bytes exceeds the limit of %d", len(head)-8, maxHeader)
	}
	binary.LittleEndian.PutUint64(head, uint64(len(head)-8))
	return head, nil
}

// writeJSON appends v, a string or a map of strings, without HTML escapes.
func writeJSON(b *bytes.Buffer, v any) {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("weights: encode %v: %v", v, err)) // strings and maps of strings always encode
	}
	b.Truncate(b.Len() - 1) // the encoder's newline
}

// writeElements writes t's elements little-endian through buf, whose length is a multiple of 8.
func writeElements(w io.Writer, t Tensor, buf []byte) error {
	for x := range slices.Chunk(t.F32, len(buf)/4) {
		for i, v := range x {
			binary.LittleEndian.PutUint32(buf[4*i:], math.Float32bits(v))
		}
		if _, err := w.Write(buf[:4*len(x)]); err != nil {
			return err
		}
	}
	for x := range slices.Chunk(t.F64, len(buf)/8) {
		for i, v := range x {
			binary.LittleEndian.PutUint64(buf[8*i:], math.Float64bits(v))
		}
		if _, err := w.Write(buf[:8*len(x)]); err != nil {
			return err
		}
	}
	return nil
}

// Read reads a whole safetensors file from r up to its end: the tensors in the order of their elements in the file, and
// the metadata (nil if there is none). F32 and F64 keep their type, F16 and BF16 are widened to float32, integers and
// BOOL to float64; an integer beyond ±2⁵³ is an error.
//
// The file may come from anybody: whatever is wrong with it is an error that says what and where, and no more is allocated
// than a small multiple of the bytes that have really arrived.
func Read(r io.Reader) (Set, map[string]string, error) {
	size := int64(-1)
	if l, ok := r.(interface{ Len() int }); ok {
		size = int64(l.Len())
	}
	br := bufio.NewReaderSize(r, chunk)
	h, err := readHeader(br, size)
	if err != nil {
		return Set{}, nil, fmt.Errorf("safetensors: %w", err)
	}
	s := NewSet(len(h.entries))
	buf := make([]byte, chunk)
	for _, e := range h.entries {
		t, err := e.decode(br, buf, size >= 0, nil)
		if err != nil {
			return Set{}, nil, fmt.Errorf("safetensors: %w", err)
		}
		s.Put(e.name, t)
	}
	switch _, err := br.ReadByte(); {
	case err == nil:
		return Set{}, nil, fmt.Errorf("safetensors: data go on after their end at offset %d", h.dataLen)
	case err != io.EOF:
		return Set{}, nil, fmt.Errorf("safetensors: read: %w", err)
	}
	return s, h.meta, nil
}

// header is what the JSON part says, checked.
type header struct {
	entries   []entry // in the order of their elements
	meta      map[string]string
	dataStart int64 // offset of the elements in the file
	dataLen   int64
}

// entry is one tensor of a header. Its shape has a volume, and end − begin is the number of its elements times their size.
type entry struct {
	name       string
	kind       kind
	shape      []int
	begin, end int64
}

func (e entry) count() int { return int(e.end-e.begin) / e.kind.size }

// readHeader reads and checks the header of a file of size bytes; size < 0 means that it is not known.
func readHeader(r io.Reader, size int64) (*header, error) {
	var head [8]byte
	if n, err := io.ReadFull(r, head[:]); err != nil {
		if !eof(err) {
			return nil, fmt.Errorf("read header length: %w", err)
		}
		return nil, fmt.Errorf("file ends after %d bytes, before the 8 bytes of the header length", n)
	}
	n := binary.LittleEndian.Uint64(head[:])
	if n > maxHeader {
		return nil, fmt.Errorf("header length %d exceeds the limit of %d: not a safetensors file?", n, maxHeader)
	}
	if size >= 0 && int64(n) > size-8 {
		return nil, fmt.Errorf("header length %d runs beyond the file of %d bytes", n, size)
	}
	var b bytes.Buffer // grows with what arrives, not with what is claimed
	if got, err := io.CopyN(&b, r, int64(n)); err != nil {
		if !eof(err) {
			return nil, fmt.Errorf("read header: %w", err)
		}
		return nil, fmt.Errorf("file ends after %d of the header's %d bytes", got, n)
	}
	h, err := parseHeader(b.Bytes())
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	h.dataStart = 8 + int64(n)
	if size >= 0 {
		switch have := size - h.dataStart; {
		case have < h.dataLen:
			return nil, fmt.Errorf("truncated: header describes %d bytes of data, the file holds %d", h.dataLen, have)
		case have > h.dataLen:
			return nil, fmt.Errorf("%d bytes of data after their end at offset %d", have-h.dataLen, h.dataLen)
		}
	}
	return h, nil
}

func parseHeader(b []byte) (*header, error) {
	if len(b) == 0 || b[0] != '{' {
		return nil, errors.New("not a JSON object")
	}
	if !utf8.Valid(b) {
		return nil, errors.New("not UTF-8")
	}
	p := parser{json.NewDecoder(bytes.NewReader(b))}
	p.UseNumber()
	h := &header{}
	err := p.object("header", func(name string) (err error) {
		if name == metaKey {
			h.meta, err = p.metadata()
			return err
		}
		e, err := p.entry(name)
		if err != nil {
			return fmt.Errorf("tensor %s: %w", quote(name), err)
		}
		h.entries = append(h.entries, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if rest := bytes.TrimLeft(b[p.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes after the JSON object", len(rest))
	}
	// Empty tensors share an offset with their neighbours; the header's order then decides.
	slices.SortStableFunc(h.entries, func(a, b entry) int {
		if a.begin != b.begin {
			return cmp64(a.begin, b.begin)
		}
		return cmp64(a.end, b.end)
	})
	for i, e := range h.entries {
		switch {
		case e.begin < h.dataLen:
			return nil, fmt.Errorf("tensors %s and %s overlap at offset %d", quote(h.entries[i-1].name), quote(e.name), e.begin)
		case e.begin > h.dataLen:
			return nil, fmt.Errorf("no tensor covers the bytes from offset %d to %d, before tensor %s", h.dataLen, e.begin, quote(e.name))
		}
		h.dataLen = e.end
	}
	return h, nil
}

func cmp64(a, b int64) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// parser reads a header token by token, so that duplicate keys and foreign structure are seen and nothing recurses.
type parser struct{ *json.Decoder }

// token returns the next token and says where it went wrong.
func (p parser) token() (json.Token, error) {
	t, err := p.Token()
	if err != nil {
		if eof(err) {
			return nil, fmt.Errorf("invalid JSON at byte %d: unexpected end", p.InputOffset())
		}
		return nil, fmt.Errorf("invalid JSON at byte %d: %w", p.InputOffset(), err)
	}
	return t, nil
}

// object reads a JSON object and calls value after each key, with the decoder before the value.
func (p parser) object(what string, value func(key string) error) error {
	t, err := p.token()
	if err != nil {
		return err
	}
	if t != json.Delim('{') {
		return fmt.Errorf("%s is %s, expected an object", what, describe(t))
	}
	seen := make(map[string]bool)
	for {
		t, err := p.token()
		if err != nil {
			return err
		}
		key, ok := t.(string)
		if !ok {
			return nil // the decoder lets only '}' pass here
		}
		if seen[key] {
			return fmt.Errorf("%s has the key %s twice", what, quote(key))
		}
		seen[key] = true
		if err := value(key); err != nil {
			return err
		}
	}
}

func (p parser) metadata() (map[string]string, error) {
	meta := make(map[string]string)
	err := p.object(metaKey, func(key string) error {
		t, err := p.token()
		if err != nil {
			return err
		}
		v, ok := t.(string)
		if !ok {
			return fmt.Errorf("%s %s is %s, expected a string", metaKey, quote(key), describe(t))
		}
		meta[key] = v
		return nil
	})
	return meta, err
}

func (p parser) entry(name string) (entry, error) {
	e := entry{name: name}
	var dtype string
	var shape, offsets []int64
	err := p.object("entry", func(key string) (err error) {
		switch key {
		case "dtype":
			t, err := p.token()
			if err != nil {
				return err
			}
			s, ok := t.(string)
			if !ok {
				return fmt.Errorf("dtype is %s, expected a string", describe(t))
			}
			dtype = s
		case "shape":
			shape, err = p.ints("shape", maxRank)
		case "data_offsets":
			offsets, err = p.ints("data_offsets", 2)
		default:
			err = fmt.Errorf("unknown key %s", quote(key))
		}
		return err
	})
	switch {
	case err != nil:
		return e, err
	case dtype == "":
		return e, errors.New("no dtype")
	case shape == nil:
		return e, errors.New("no shape")
	case len(offsets) != 2:
		return e, fmt.Errorf("%d data_offsets, expected 2", len(offsets))
	}
	var ok bool
	if e.kind, ok = kindOf(dtype); !ok {
		return e, fmt.Errorf("dtype %s is not supported", quote(dtype))
	}
	if e.shape, err = dims(shape); err != nil {
		return e, err
	}
	e.begin, e.end = offsets[0], offsets[1]
	if e.end < e.begin {
		return e, fmt.Errorf("data_offsets %v end before they begin", offsets)
	}
	if want := int64(elements(e.shape)) * int64(e.kind.size); e.end-e.begin != want {
		return e, fmt.Errorf("shape %v of %s needs %d bytes, data_offsets %v hold %d", e.shape, dtype, want, offsets, e.end-e.begin)
	}
	return e, nil
}

// ints reads a JSON array of at most limit non-negative integers.
func (p parser) ints(what string, limit int) ([]int64, error) {
	t, err := p.token()
	if err != nil {
		return nil, err
	}
	if t != json.Delim('[') {
		return nil, fmt.Errorf("%s is %s, expected a list", what, describe(t))
	}
	out := []int64{}
	for {
		t, err := p.token()
		if err != nil {
			return nil, err
		}
		if t == json.Delim(']') {
			return out, nil
		}
		n, ok := t.(json.Number)
		if !ok {
			return nil, fmt.Errorf("%s holds %s, expected integers", what, describe(t))
		}
		v, err := strconv.ParseUint(n.String(), 10, 63)
		if err != nil {
			return nil, fmt.Errorf("%s holds %.40s, expected an integer from 0 to 2⁶³−1", what, n)
		}
		if len(out) == limit {
			return nil, fmt.Errorf("%s has more than %d numbers", what, limit)
		}
		out = append(out, int64(v))
	}
}

// dims returns shape, whose dimensions are not negative, as ints.
func dims(shape []int64) ([]int, error) {
	out := make([]int, len(shape))
	for i, d := range shape {
		if d > math.MaxInt {
			return nil, fmt.Errorf("dimension %d is too large", d)
		}
		out[i] = int(d)
	}
	if _, ok := volume(out); !ok {
		return nil, fmt.Errorf("shape %v is too large", shape)
	}
	return out, nil
}

// describe names a JSON token in an error.
func describe(t json.Token) string {
	switch t := t.(type) {
	case nil:
		return "null"
	case json.Delim:
		if t == '[' || t == ']' {
			return "a list"
		}
		return "an object"
	case string:
		return "the string " + quote(t)
	case json.Number:
		return fmt.Sprintf("the number %.40s", t.String())
	}
	return fmt.Sprint(t)
}

// quote quotes a name of unknown origin and length.
func quote(s string) string {
	if len(s) > 100 {
		return strconv.Quote(s[:100]) + "…"
	}
	return strconv.Quote(s)
}

func eof(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
