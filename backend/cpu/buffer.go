package cpu

import (
	"math/bits"
	"sync"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/pkg/errors"
)

// Buffer is an array in memory. Its shape is always concrete.
type Buffer struct {
	backend *Backend
	shape   shapes.Shape
	block   block // zero once finalized or donated
	valid   bool
}

var _ compute.Buffer = (*Buffer)(nil)

// Backend returns the backend that made the buffer.
func (b *Buffer) Backend() compute.Backend { return b.backend }

// Finalize returns the memory to the backend. The buffer and slices obtained
// from Data must not be used afterwards; a second call does nothing.
func (b *Buffer) Finalize() error {
	if b.valid {
		b.valid = false
		b.backend.memory.put(b.block)
		b.block = block{}
	}
	return nil
}

// Shape returns the shape.
func (b *Buffer) Shape() (shapes.Shape, error) { return b.shape, b.check("Shape") }

// DeviceNum is always 0.
func (b *Buffer) DeviceNum() (compute.DeviceNum, error) { return 0, b.check("DeviceNum") }

func (b *Buffer) check(what string) error {
	if !b.valid {
		return errors.Errorf("%s of a buffer of shape %s that was finalized or donated", what, b.shape)
	}
	return nil
}

// ToFlatData copies the elements to flat, a slice of the Go type of the shape's
// dtype with room for all of them.
func (b *Buffer) ToFlatData(flat any) error {
	if err := b.check("ToFlatData"); err != nil {
		return err
	}
	if dt, n := flatOf(flat); dt != storageType(b.shape.DType) || n*dt.Size() != b.size() {
		return errors.Errorf("ToFlatData: cannot copy a buffer of shape %s to a %T of length %d", b.shape, flat, n)
	}
	copy(dtypes.UnsafeByteSliceFromAny(flat), b.bytes())
	return nil
}

// Data returns a slice over the memory of the buffer itself.
func (b *Buffer) Data() (any, error) {
	if err := b.check("Data"); err != nil {
		return nil, err
	}
	if b.size() == 0 {
		return dtypes.MakeAnySlice(b.shape.DType, 0), nil
	}
	return dtypes.UnsafeAnySliceFromBytes(b.block.data, storageType(b.shape.DType), b.size()/b.shape.DType.Size()), nil
}

// CopyToDevice returns a copy; there is only device 0.
func (b *Buffer) CopyToDevice(device compute.DeviceNum) (compute.Buffer, error) {
	if err := b.check("CopyToDevice"); err != nil {
		return nil, err
	}
	if device != 0 {
		return nil, errors.Errorf("CopyToDevice: there is no device %d, the cpu backend has device 0 only", device)
	}
	c := b.backend.newBuffer(b.shape)
	copy(c.bytes(), b.bytes())
	return c, nil
}

func (b *Buffer) size() int { return int(b.shape.ByteSize()) }

func (b *Buffer) bytes() []byte { return unsafe.Slice((*byte)(b.block.data), b.size()) }

// storageType is the dtype of the Go slices that hold dt.
func storageType(dt dtypes.DType) dtypes.DType { return dtypes.FromGoType(dt.GoType()) }

// flatOf returns the element type and length of a flat slice; the type is
// InvalidDType if it is none.
func flatOf(flat any) (dtypes.DType, int) {
	switch s := flat.(type) {
	case []bool:
		return dtypes.Bool, len(s)
	case []int8:
		return dtypes.Int8, len(s)
	case []int16:
		return dtypes.Int16, len(s)
	case []int32:
		return dtypes.Int32, len(s)
	case []int64:
		return dtypes.Int64, len(s)
	case []uint8:
		return dtypes.Uint8, len(s)
	case []uint16:
		return dtypes.Uint16, len(s)
	case []uint32:
		return dtypes.Uint32, len(s)
	case []uint64:
		return dtypes.Uint64, len(s)
	case []float32:
		return dtypes.Float32, len(s)
	case []float64:
		return dtypes.Float64, len(s)
	}
	return flatOfHalf(flat)
}

// newBuffer returns a buffer with undefined contents.
func (b *Backend) newBuffer(shape shapes.Shape) *Buffer {
	return &Buffer{backend: b, shape: shape, block: b.memory.get(int(shape.ByteSize())), valid: true}
}

// BufferFromFlatData copies a flat slice of Go values into a new buffer.
func (b *Backend) BufferFromFlatData(device compute.DeviceNum, flat any, shape shapes.Shape) (compute.Buffer, error) {
	if device != 0 {
		return nil, errors.Errorf("BufferFromFlatData: there is no device %d, the cpu backend has device 0 only", device)
	}
	if !capabilities.DTypes[shape.DType] {
		return nil, errors.Wrapf(compute.ErrNotImplemented, "BufferFromFlatData: dtype %s", shape.DType)
	}
	if shape.IsDynamic() {
		return nil, errors.Errorf("BufferFromFlatData: shape %s has dynamic axes, a buffer needs concrete ones", shape)
	}
	if dt, n := flatOf(flat); dt != storageType(shape.DType) || n*dt.Size() != int(shape.ByteSize()) {
		return nil, errors.Errorf("BufferFromFlatData: a %T of length %d does not hold shape %s", flat, n, shape)
	}
	buf := b.newBuffer(shape.Clone())
	copy(buf.bytes(), dtypes.UnsafeByteSliceFromAny(flat))
	return buf, nil
}

// HasSharedBuffers is true: buffers are ordinary memory.
func (b *Backend) HasSharedBuffers() bool { return true }

// NewSharedBuffer returns a zeroed buffer and the slice over its memory.
func (b *Backend) NewSharedBuffer(device compute.DeviceNum, shape shapes.Shape) (compute.Buffer, any, error) {
	if device != 0 {
		return nil, nil, errors.Errorf("NewSharedBuffer: there is no device %d, the cpu backend has device 0 only", device)
	}
	if !capabilities.DTypes[shape.DType] || shape.IsDynamic() {
		return nil, nil, errors.Errorf("NewSharedBuffer: shape %s has an unsupported dtype or dynamic axes", shape)
	}
	buf := b.newBuffer(shape.Clone())
	clear(buf.bytes())
	flat, err := buf.Data()
	return buf, flat, err
}

// block is a piece of memory that begins at a cache line.
type block struct {
	data  unsafe.Pointer
	class uint8 // size class; see classOf
}

// memory keeps the blocks of finalized buffers for the next ones. Blocks come
// in classes of four sizes per power of two, so at most a fifth of one is
// wasted. The pool holds no more than was ever in use at once: blocks of the
// class that nobody has asked for the longest make room.
type memory struct {
	mu     sync.Mutex
	free   [256][]unsafe.Pointer
	asked  [256]uint64 // when a block of the class was last asked for
	clock  uint64
	used   int // bytes handed out
	most   int // largest value of used so far
	pooled int // bytes in free
}

const minBlock = 64

// classOf returns the smallest class that holds n bytes, and its size.
func classOf(n int) (class uint8, size int) {
	n = max(n, minBlock)
	e := bits.Len(uint(n-1)) - 3 // the top three bits below the next power of two
	steps := (n-1)>>e + 1        // 5..8
	return uint8(e*4 + steps - 5), steps << e
}

func classSize(class uint8) int { return (int(class)%4 + 5) << (class / 4) }

func (m *memory) get(n int) block {
	class, size := classOf(n)
	m.mu.Lock()
	m.clock++
	m.asked[class] = m.clock
	m.used += size
	m.most = max(m.most, m.used)
	if l := m.free[class]; len(l) > 0 {
		p := l[len(l)-1]
		m.free[class] = l[:len(l)-1]
		m.pooled -= size
		m.mu.Unlock()
		return block{p, class}
	}
	m.mu.Unlock()
	return block{alignedBytes(size), class}
}

func (m *memory) put(b block) {
	if b.data == nil {
		return
	}
	size := classSize(b.class)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used -= size
	for m.pooled+size > m.most {
		if !m.forget(b.class) {
			return
		}
	}
	m.free[b.class] = append(m.free[b.class], b.data)
	m.pooled += size
}

// forget drops a free block of the class that was asked for the longest ago,
// before class was. The caller holds the lock.
func (m *memory) forget(class uint8) bool {
	oldest := class
	for c, l := range m.free {
		if len(l) > 0 && m.asked[c] < m.asked[oldest] {
			oldest = uint8(c)
		}
	}
	if oldest == class {
		return false
	}
	l := m.free[oldest]
	m.free[oldest], l[len(l)-1] = l[:len(l)-1], nil
	m.pooled -= classSize(oldest)
	return true
}

func (m *memory) drop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free = [256][]unsafe.Pointer{}
	m.pooled = 0
}

// alignedBytes returns at least n bytes beginning at a cache line.
func alignedBytes(n int) unsafe.Pointer {
	const line = 64
	p := unsafe.Pointer(unsafe.SliceData(make([]byte, n+line)))
	return unsafe.Add(p, -uintptr(p)&(line-1))
}
