package member

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/transport"
)

// RollbackError says that the coordinator's journal does not continue the one that this member has seen: the coordinator was
// put back to an earlier state, or tells different members different things.
type RollbackError struct {
	Run     string
	Seen    transport.Head // by this member
	Offered transport.Head // by the coordinator, now
	Why     string
}

func (e *RollbackError) Error() string {
	return fmt.Sprintf("run %s: the coordinator's journal does not continue the one that this member has seen: %s\n"+
		"  seen    record %d, hash %s\n  offered record %d, hash %s\n"+
		"If the coordinator was restored from a backup, and you believe who told you so, go on with --accept-rollback",
		e.Run, e.Why, e.Seen.Seq, e.Seen.Hash, e.Offered.Seq, e.Offered.Hash)
}

// continues compares a head that is offered with the one that was seen.
func continues(run string, have *transport.Head, offered transport.Head) error {
	switch {
	case have == nil:
		return nil
	case offered.Seq < have.Seq:
		return &RollbackError{run, *have, offered, "it is shorter"}
	case offered.Seq == have.Seq && offered.Hash != have.Hash:
		return &RollbackError{run, *have, offered, "the same record reads otherwise"}
	}
	return nil
}

// What a line of a journal ends in; package journal describes the format.
const (
	seqKey   = `{"seq":`
	prevKey  = `,"prev":"`
	hashKey  = `","hash":"`
	lineEnd  = "\"}\n"
	hexLen   = 2 * sha256.Size
	hashTail = len(hashKey) - 1 + hexLen + len(lineEnd)
	lineTail = len(prevKey) + hexLen + hashTail + 1
)

// errChain says that lines are not the piece of a journal that they should be.
var errChain = errors.New("the records that it shows do not link them")

// link reads lines of the coordinator's journal, the first of which is the record that was seen, and verifies that a chain
// of hashes leads from it to the head that is offered. Lines behind that are not read.
func link(r io.Reader, have, offered transport.Head) error {
	if have == offered {
		return nil
	}
	lines := bufio.NewReaderSize(r, 64<<10)
	at := have
	for first := true; ; first = false {
		line, err := readLine(lines)
		if err != nil {
			return fmt.Errorf("%w: after record %d: %w", errChain, at.Seq, err)
		}
		seq, prev, hash, ok := parseLine(line)
		switch {
		case !ok:
			return fmt.Errorf("%w: what follows record %d is none", errChain, at.Seq)
		case first && (seq != have.Seq || hash != have.Hash):
			return fmt.Errorf("%w: record %d has hash %s", errChain, seq, hash)
		case first:
		case seq != at.Seq+1 || prev != at.Hash:
			return fmt.Errorf("%w: record %d does not follow record %d", errChain, seq, at.Seq)
		}
		at = transport.Head{Seq: seq, Hash: hash}
		if at.Seq == offered.Seq {
			if at != offered {
				return fmt.Errorf("%w: record %d has hash %s", errChain, at.Seq, at.Hash)
			}
			return nil
		}
	}
}

func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > journal.MaxLine:
			return nil, fmt.Errorf("a line of more than %d bytes", journal.MaxLine)
		case err == nil:
			return line, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// parseLine reads number, previous hash and hash of a line whose hash is that of its bytes.
func parseLine(line []byte) (seq uint64, prev, hash transport.Digest, ok bool) {
	if len(line) < lineTail {
		return 0, prev, hash, false
	}
	tail := line[len(line)-lineTail:]
	p, tail, ok1 := cutHash(tail, prevKey)
	h, tail, ok2 := cutHash(tail, hashKey)
	if !ok1 || !ok2 || string(tail) != lineEnd || sha256.Sum256(line[:len(line)-hashTail]) != h {
		return 0, prev, hash, false
	}
	text, _, _ := bytes.Cut(bytes.TrimPrefix(line, []byte(seqKey)), []byte(","))
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil || !bytes.HasPrefix(line, strconv.AppendUint([]byte(seqKey), n, 10)) || !json.Valid(line) {
		return 0, prev, hash, false
	}
	return n, p, h, true
}

func cutHash(b []byte, key string) (h transport.Digest, rest []byte, ok bool) {
	b, ok = bytes.CutPrefix(b, []byte(key))
	if !ok || len(b) < hexLen {
		return h, nil, false
	}
	return h, b[hexLen:], h.UnmarshalText(b[:hexLen]) == nil // capitals are none of its digits
}
