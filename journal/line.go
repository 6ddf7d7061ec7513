package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// MaxLine is the greatest length of a line in bytes, its line feed included.
// Bigger things belong into files or blobs that a record names by their hash.
const MaxLine = 8 << 20

// timeLayout has a fixed width, so that journals line up for the eye.
const timeLayout = "2006-01-02T15:04:05.000000000Z"

// A Hash is the SHA-256 that a record carries.
type Hash [sha256.Size]byte

// String returns h as 64 lower-case hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText returns what String returns.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads 64 lower-case hexadecimal digits.
func (h *Hash) UnmarshalText(text []byte) error {
	v, ok := parseHash(text)
	if !ok {
		return fmt.Errorf("hash %.80q is not 64 lower-case hexadecimal digits", text)
	}
	*h = v
	return nil
}

// A Record is one line of a journal.
type Record struct {
	Seq    uint64          // number in the journal; the header is 0
	Time   time.Time       // when it was written, UTC
	Kind   string          // what happened, such as "round.closed"
	Body   json.RawMessage // what the kind says, one JSON value
	Prev   Hash            // hash of the record before; zero in record 0
	Hash   Hash            // hash of this record
	Offset int64           // byte at which its line begins in the file

	outer *Record // as it stands in the file, if that is otherwise: sealed
}

// Sealed reports whether the record is sealed in the file.
func (r Record) Sealed() bool { return r.outer != nil || r.Kind == KindSealed }

// written returns the record as it stands in the file.
func (r *Record) written() *Record {
	if r.outer != nil {
		return r.outer
	}
	return r
}

// Decode unmarshals the record's body into v and names the record if that fails.
func (r Record) Decode(v any) error {
	if err := json.Unmarshal(r.Body, v); err != nil {
		return fmt.Errorf("journal record %d (%s): body: %w", r.Seq, r.Kind, err)
	}
	return nil
}

// ValidKind reports whether kind may name a record: 1 to 64 of the characters
// a–z 0–9 . _ -, a letter first.
func ValidKind(kind string) bool {
	if len(kind) == 0 || len(kind) > 64 || kind[0] < 'a' || kind[0] > 'z' {
		return false
	}
	for i := range len(kind) {
		c := kind[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

const (
	prevKey = `,"prev":"`
	hashKey = `","hash":"`
	lineEnd = `"}` + "\n"

	hexLen = 2 * sha256.Size
	// hashTail is the length of ,"hash":"…"} and the line feed: all that the
	// hash does not cover. The quote that opens hashKey closes prev.
	hashTail = len(hashKey) - 1 + hexLen + len(lineEnd)
	tailLen  = len(prevKey) + hexLen + len(hashKey) + hexLen + len(lineEnd)
)

// appendLine appends r's line to dst and returns it with r.Hash set.
func appendLine(dst []byte, r *Record) []byte {
	start := len(dst)
	dst = append(dst, `{"seq":`...)
	dst = strconv.AppendUint(dst, r.Seq, 10)
	dst = append(dst, `,"time":"`...)
	dst = r.Time.UTC().AppendFormat(dst, timeLayout)
	dst = append(dst, `","kind":"`...)
	dst = append(dst, r.Kind...)
	dst = append(dst, `","body":`...)
	dst = append(dst, r.Body...)
	dst = append(dst, prevKey...)
	dst = hex.AppendEncode(dst, r.Prev[:])
	dst = append(dst, '"')
	r.Hash = sha256.Sum256(dst[start:])
	dst = append(dst, hashKey[1:]...)
	dst = hex.AppendEncode(dst, r.Hash[:])
	return append(dst, lineEnd...)
}

// parseLine reads one line, its line feed included. It accepts exactly what
// appendLine writes; the string says what is wrong with anything else. The
// record does not share memory with line. Neither number nor chain is checked.
func parseLine(line []byte) (r Record, wrong string) {
	if len(line) < tailLen {
		return r, "is too short to be a record"
	}
	tail := line[len(line)-tailLen:]
	prev, tail1, ok1 := cutHash(tail, prevKey)
	hash, tail2, ok2 := cutHash(tail1, hashKey)
	if !ok1 || !ok2 || string(tail2) != lineEnd {
		return r, "does not end in a hash of the record before and its own hash"
	}
	r.Prev, r.Hash = prev, hash
	if sum := Hash(sha256.Sum256(line[:len(line)-hashTail])); sum != hash {
		return r, fmt.Sprintf("says its hash is %s, but its bytes have %s", hash, sum)
	}

	rest := line[:len(line)-tailLen]
	seq, rest, ok := cutField(rest, `{"seq":`, `,"time":"`)
	r.Seq, ok = parseSeq(seq, ok)
	if !ok {
		return r, "does not begin with its number"
	}
	when, rest, ok := bytes.Cut(rest, []byte(`","kind":"`))
	t, err := time.Parse(timeLayout, string(when))
	if !ok || err != nil || t.Format(timeLayout) != string(when) {
		return r, fmt.Sprintf("has no valid time (%.40q)", when)
	}
	kind, body, ok := bytes.Cut(rest, []byte(`","body":`))
	if !ok || !ValidKind(string(kind)) {
		return r, fmt.Sprintf("has no valid kind (%.80q)", kind)
	}
	if !json.Valid(body) {
		return r, "has a body that is not JSON"
	}
	r.Time, r.Kind, r.Body = t, string(kind), bytes.Clone(body)
	return r, ""
}

// cutHash takes key and 64 hexadecimal digits off the front of b.
func cutHash(b []byte, key string) (h Hash, rest []byte, ok bool) {
	b, ok = bytes.CutPrefix(b, []byte(key))
	if !ok || len(b) < hexLen {
		return h, nil, false
	}
	h, ok = parseHash(b[:hexLen])
	return h, b[hexLen:], ok
}

func cutField(b []byte, before, after string) (field, rest []byte, ok bool) {
	b, ok = bytes.CutPrefix(b, []byte(before))
	if !ok {
		return nil, nil, false
	}
	return bytes.Cut(b, []byte(after))
}

func parseSeq(b []byte, ok bool) (uint64, bool) {
	n, err := strconv.ParseUint(string(b), 10, 64)
	return n, ok && err == nil && strconv.FormatUint(n, 10) == string(b)
}

func parseHash(b []byte) (h Hash, ok bool) {
	if len(b) != hexLen || bytes.ContainsAny(b, "ABCDEF") {
		return h, false
	}
	_, err := hex.Decode(h[:], b)
	return h, err == nil
}

// Line returns the record as it stands in the journal's file, line feed included.
func (r Record) Line() []byte { return appendLine(nil, r.written()) }
