package blob

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// ChunkSize is the length of every chunk of a blob but the last, in bytes.
	ChunkSize = 1 << 20
	// MaxManifest is the length of the longest manifest, and of the longest
	// object that a store accepts, in bytes.
	MaxManifest = 16 << 20
	// MaxBytes is the length of the longest blob: 512 GiB less a chunk.
	MaxBytes = (MaxManifest - manifestHead) / hashSize * ChunkSize

	manifestMagic = "cohortB1"
	manifestHead  = 16
	hashSize      = sha256.Size
)

// ErrNoManifest says that bytes are not a manifest.
var ErrNoManifest = errors.New("not a manifest")

// A Manifest lists the chunks of a blob in order.
type Manifest struct {
	Bytes  int64  // length of the blob
	Chunks []Hash // ⌈Bytes / ChunkSize⌉ of them
}

// ChunksOf returns how many chunks a blob of so many bytes has.
func ChunksOf(bytes int64) int64 { return (bytes + ChunkSize - 1) / ChunkSize }

// ManifestLen returns the length of the manifest of a blob of so many bytes.
func ManifestLen(bytes int64) int64 { return manifestHead + hashSize*ChunksOf(bytes) }

// ChunkLen returns the length of chunk i in bytes.
func (m Manifest) ChunkLen(i int) int64 {
	return min(ChunkSize, m.Bytes-int64(i)*ChunkSize)
}

// Hash returns the name of the blob.
func (m Manifest) Hash() Hash { return Sum(m.Encode()) }

// Encode returns the manifest's bytes, as the package comment describes them.
// It panics if the number of chunks does not fit the number of bytes.
func (m Manifest) Encode() []byte {
	if m.Bytes < 0 || m.Bytes > MaxBytes || int64(len(m.Chunks)) != ChunksOf(m.Bytes) {
		panic(fmt.Sprintf("blob: a manifest of %d bytes in %d chunks", m.Bytes, len(m.Chunks)))
	}
	b := make([]byte, 0, ManifestLen(m.Bytes))
	b = append(b, manifestMagic...)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Bytes))
	for i := range m.Chunks {
		b = append(b, m.Chunks[i][:]...)
	}
	return b
}

// DecodeManifest reads what Encode wrote, and nothing else: what it accepts
// encodes to the same bytes again. Errors are [ErrNoManifest].
func DecodeManifest(b []byte) (Manifest, error) {
	if len(b) > MaxManifest {
		return Manifest{}, fmt.Errorf("%w: %d bytes are above the limit of %d", ErrNoManifest, len(b), MaxManifest)
	}
	if len(b) < manifestHead || string(b[:len(manifestMagic)]) != manifestMagic {
		return Manifest{}, fmt.Errorf("%w: its %d bytes do not begin with %q", ErrNoManifest, len(b), manifestMagic)
	}
	n := binary.BigEndian.Uint64(b[len(manifestMagic):])
	if n > MaxBytes || ManifestLen(int64(n)) != int64(len(b)) {
		return Manifest{}, fmt.Errorf("%w: %d bytes do not list the chunks of a blob of %d bytes", ErrNoManifest, len(b), n)
	}
	m := Manifest{Bytes: int64(n), Chunks: make([]Hash, ChunksOf(int64(n)))}
	for i := range m.Chunks {
		copy(m.Chunks[i][:], b[manifestHead+i*hashSize:])
	}
	return m, nil
}
