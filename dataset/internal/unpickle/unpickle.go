// Package unpickle reads the few Python pickles that carry image data sets: dictionaries, lists and tuples of numbers,
// strings and NumPy arrays of bytes or integers.
//
// A pickle is a program for a stack machine that may name any Python function. This reader knows only the operations that
// build plain values, and of all functions only the handful with which NumPy writes an array; everything else is an
// error that says which operation or name was refused and at which byte. Nothing is ever executed or imported. Work and
// memory are bounded: strings and arrays are slices of the input, and at most maxValues values are built.
//
// The operations are those of Python's pickletools, protocols 0 to 5.
package unpickle

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"
)

// The kinds of value that Decode returns, beside nil, bool, int64, float64 and string.
type (
	// List is a Python list; it is a pointer because later operations may still append to it.
	List struct{ Items []any }
	// Tuple is a Python tuple.
	Tuple []any
	// Bytes is a Python bytes, bytearray, or Python 2 string.
	Bytes []byte
	// Dict is a Python dictionary whose keys are strings; others are refused.
	Dict struct {
		Keys   []string
		Values []any
	}
	// Array is a NumPy array in C order, little-endian.
	Array struct {
		Dims []int
		Type string // "u1", "i1", "i2", "i4" or "i8"
		Data []byte
	}
)

// Get returns the value of the last pair with the given key.
func (d *Dict) Get(key string) (any, bool) {
	for i := len(d.Keys) - 1; i >= 0; i-- {
		if d.Keys[i] == key {
			return d.Values[i], true
		}
	}
	return nil, false
}

// Len returns the number of elements of a.
func (a *Array) Len() int { return len(a.Data) / itemSize(a.Type) }

// Int returns element i of a.
func (a *Array) Int(i int) int64 {
	switch b := a.Data[i*itemSize(a.Type):]; a.Type {
	case "u1":
		return int64(b[0])
	case "i1":
		return int64(int8(b[0]))
	case "i2":
		return int64(int16(binary.LittleEndian.Uint16(b)))
	case "i4":
		return int64(int32(binary.LittleEndian.Uint32(b)))
	default:
		return int64(binary.LittleEndian.Uint64(b))
	}
}

// itemSize returns the bytes of one element, or 0 for a type that is not supported.
func itemSize(dtype string) int {
	switch dtype {
	case "u1", "i1":
		return 1
	case "i2":
		return 2
	case "i4":
		return 4
	case "i8":
		return 8
	}
	return 0
}

// maxValues bounds how many values a pickle may build. The largest official CIFAR file builds about 150,000.
const maxValues = 2 << 20

// global is a name that the pickle asked for, one of those in known.
type global string

// dtype is a NumPy data type under construction.
type dtype struct{ code string }

// known are the functions and types with which NumPy pickles an array, under all module names it has used.
func known(module, name string) (global, bool) {
	switch module + " " + name {
	case "numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct":
		return "reconstruct", true
	case "numpy.core.multiarray scalar", "numpy._core.multiarray scalar":
		return "scalar", true
	case "numpy.core.numeric _frombuffer", "numpy._core.numeric _frombuffer":
		return "frombuffer", true
	case "numpy ndarray":
		return "ndarray", true
	case "numpy dtype":
		return "dtype", true
	case "_codecs encode":
		return "encode", true
	}
	return "", false
}

// machine is the state of the stack machine.
type machine struct {
	in     []byte
	at     int // next byte
	op     int // byte of the current operation
	stack  []any
	marks  []int // heights of the stack
	memo   map[uint32]any
	values int
}

// refusal carries an error through the machine; only this package panics with it and Decode recovers it.
type refusal struct{ err error }

// fail stops at the current operation.
func (m *machine) fail(format string, args ...any) {
	panic(refusal{fmt.Errorf("byte %d: %w", m.op, fmt.Errorf(format, args...))})
}

// Decode runs a pickle and returns the value it builds.
func Decode(pickle []byte) (value any, err error) {
	m := &machine{in: pickle, memo: make(map[uint32]any)}
	defer func() {
		if r := recover(); r != nil {
			stop, ok := r.(refusal)
			if !ok {
				panic(r)
			}
			value, err = nil, stop.err
		}
	}()
	for !m.step() {
	}
	return m.stack[0], nil
}

// take returns the next n bytes of the input.
func (m *machine) take(n uint64) []byte {
	if n > uint64(len(m.in)-m.at) {
		m.fail("the pickle ends early: %d bytes wanted, %d left", n, len(m.in)-m.at)
	}
	b := m.in[m.at : m.at+int(n) : m.at+int(n)]
	m.at += int(n)
	return b
}

func (m *machine) uint(width uint64) uint64 {
	var b [8]byte
	copy(b[:], m.take(width))
	return binary.LittleEndian.Uint64(b[:])
}

// line returns the input up to the next newline.
func (m *machine) line() string {
	i := bytes.IndexByte(m.in[m.at:], '\n')
	if i < 0 {
		m.fail("the pickle ends inside a line")
	}
	return string(m.take(uint64(i) + 1)[:i])
}

func (m *machine) text(b []byte) string {
	if !utf8.Valid(b) {
		m.fail("a string is not UTF-8")
	}
	return string(b)
}

func (m *machine) push(v any) {
	if m.values++; m.values > maxValues {
		m.fail("more than %d values", maxValues)
	}
	m.stack = append(m.stack, v)
}

// base is the height of the stack below which the current operation may not reach.
func (m *machine) base() int {
	if n := len(m.marks); n > 0 {
		return m.marks[n-1]
	}
	return 0
}

func (m *machine) pop() any {
	if len(m.stack) <= m.base() {
		m.fail("the stack is empty")
	}
	v := m.stack[len(m.stack)-1]
	m.stack = m.stack[:len(m.stack)-1]
	return v
}

func (m *machine) top() any {
	v := m.pop()
	m.stack = append(m.stack, v)
	return v
}

// popMark returns what lies above the last mark, and takes both away.
func (m *machine) popMark() []any {
	if len(m.marks) == 0 {
		m.fail("no mark on the stack")
	}
	from := m.base()
	items := slices.Clone(m.stack[from:])
	m.stack = m.stack[:from]
	m.marks = m.marks[:len(m.marks)-1]
	return items
}

func (m *machine) popTuple(n int) {
	t := make(Tuple, n)
	for i := n - 1; i >= 0; i-- {
		t[i] = m.pop()
	}
	m.push(t)
}

// step runs one operation and reports whether it was the last.
func (m *machine) step() bool {
	m.op = m.at
	switch op := m.take(1)[0]; op {
	case 0x80: // PROTO
		if v := m.take(1)[0]; v > 5 {
			m.fail("pickle protocol %d; 0 to 5 are known", v)
		}
	case 0x95: // FRAME
		m.take(8)
	case '.': // STOP
		if len(m.stack) != 1 || len(m.marks) != 0 {
			m.fail("%d values are left at the end, not 1", len(m.stack))
		}
		return true

	case 'N':
		m.push(nil)
	case 0x88:
		m.push(true)
	case 0x89:
		m.push(false)
	case 'K': // BININT1
		m.push(int64(m.uint(1)))
	case 'M': // BININT2
		m.push(int64(m.uint(2)))
	case 'J': // BININT
		m.push(int64(int32(m.uint(4))))
	case 0x8a: // LONG1
		m.push(m.long(m.uint(1)))
	case 'G': // BINFLOAT
		m.push(math.Float64frombits(binary.BigEndian.Uint64(m.take(8))))

	case 'U', 'C': // SHORT_BINSTRING, SHORT_BINBYTES
		m.push(Bytes(m.take(m.uint(1))))
	case 'T', 'B': // BINSTRING, BINBYTES
		m.push(Bytes(m.take(m.uint(4))))
	case 0x8e, 0x96: // BINBYTES8, BYTEARRAY8
		m.push(Bytes(m.take(m.uint(8))))
	case 0x8c: // SHORT_BINUNICODE
		m.push(m.text(m.take(m.uint(1))))
	case 'X': // BINUNICODE
		m.push(m.text(m.take(m.uint(4))))
	case 0x8d: // BINUNICODE8
		m.push(m.text(m.take(m.uint(8))))

	case '(': // MARK
		if len(m.marks) >= maxValues {
			m.fail("more than %d marks", maxValues)
		}
		m.marks = append(m.marks, len(m.stack))
	case '0': // POP
		m.pop()
	case '1': // POP_MARK
		m.popMark()
	case ']':
		m.push(new(List))
	case '}':
		m.push(new(Dict))
	case ')':
		m.push(Tuple(nil))
	case 'l': // LIST
		m.push(&List{Items: m.popMark()})
	case 't': // TUPLE
		m.push(Tuple(m.popMark()))
	case 'd': // DICT
		d := new(Dict)
		m.set(d, m.popMark())
		m.push(d)
	case 0x85, 0x86, 0x87: // TUPLE1 … TUPLE3
		m.popTuple(int(op) - 0x84)
	case 'a': // APPEND
		v := m.pop()
		m.list().Items = append(m.list().Items, v)
	case 'e': // APPENDS
		items := m.popMark()
		m.list().Items = append(m.list().Items, items...)
	case 's': // SETITEM
		v := m.pop()
		k := m.pop()
		m.set(m.dict(), []any{k, v})
	case 'u': // SETITEMS
		items := m.popMark()
		m.set(m.dict(), items)

	case 'q': // BINPUT
		m.memo[uint32(m.uint(1))] = m.top()
	case 'r': // LONG_BINPUT
		m.memo[uint32(m.uint(4))] = m.top()
	case 0x94: // MEMOIZE
		m.memo[uint32(len(m.memo))] = m.top()
	case 'h': // BINGET
		m.get(uint32(m.uint(1)))
	case 'j': // LONG_BINGET
		m.get(uint32(m.uint(4)))

	case 'c': // GLOBAL
		module := m.line()
		m.global(module, m.line())
	case 0x93: // STACK_GLOBAL
		name, _ := m.pop().(string)
		module, _ := m.pop().(string)
		m.global(module, name)
	case 'R': // REDUCE
		args, ok := m.pop().(Tuple)
		f, isGlobal := m.pop().(global)
		if !ok || !isGlobal {
			m.fail("a call of something that is not a known function")
		}
		m.push(m.call(f, args))
	case 'b': // BUILD
		state, _ := m.pop().(Tuple)
		m.build(m.top(), state)
	default:
		m.fail("pickle operation 0x%02x is not allowed here", op)
	}
	return false
}

func (m *machine) long(width uint64) int64 {
	if width > 8 {
		m.fail("an integer of %d bytes", width)
	}
	b := m.take(width)
	if width == 0 {
		return 0
	}
	var full [8]byte
	if b[width-1]&0x80 != 0 {
		full = [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	copy(full[:], b)
	return int64(binary.LittleEndian.Uint64(full[:]))
}

func (m *machine) get(i uint32) {
	v, ok := m.memo[i]
	if !ok {
		m.fail("memo %d is empty", i)
	}
	m.push(v)
}

func (m *machine) list() *List {
	l, ok := m.top().(*List)
	if !ok {
		m.fail("an append to %T", m.top())
	}
	return l
}

func (m *machine) dict() *Dict {
	d, ok := m.top().(*Dict)
	if !ok {
		m.fail("an item set in %T", m.top())
	}
	return d
}

func (m *machine) set(d *Dict, pairs []any) {
	if len(pairs)%2 != 0 {
		m.fail("a dictionary of %d keys and values", len(pairs))
	}
	for i := 0; i < len(pairs); i += 2 {
		switch k := pairs[i].(type) {
		case string:
			d.Keys = append(d.Keys, k)
		case Bytes:
			d.Keys = append(d.Keys, string(k))
		default:
			m.fail("a dictionary key of type %T", k)
		}
		d.Values = append(d.Values, pairs[i+1])
	}
}

func (m *machine) global(module, name string) {
	g, ok := known(module, name)
	if !ok {
		m.fail("the pickle asks for %.80q of module %.80q, which is refused", name, module)
	}
	m.push(g)
}

// call is REDUCE for the known functions.
func (m *machine) call(f global, args Tuple) any {
	arg := func(i int) any {
		if i >= len(args) {
			m.fail("%s is called with %d arguments", f, len(args))
		}
		return args[i]
	}
	switch f {
	case "reconstruct": // (ndarray, (0,), b'b'): an empty array that BUILD fills
		if arg(0) != global("ndarray") {
			m.fail("only ndarray can be reconstructed")
		}
		return new(Array)
	case "dtype": // (code, align, copy)
		code := m.str(arg(0))
		if itemSize(code) == 0 {
			m.fail("arrays of type %.20q; bytes and signed integers are supported", code)
		}
		return &dtype{code: code}
	case "scalar": // (dtype, bytes)
		t, ok := arg(0).(*dtype)
		b, isBytes := arg(1).(Bytes)
		if !ok || !isBytes || len(b) != itemSize(t.code) {
			m.fail("a malformed scalar")
		}
		return (&Array{Type: t.code, Data: b}).Int(0)
	case "encode": // (text, "latin1"): how Python 3 writes bytes with protocol 2
		text, ok := arg(0).(string)
		if coding := m.str(arg(1)); !ok || coding != "latin1" && coding != "latin-1" {
			m.fail("an encoding other than latin1")
		}
		out := make(Bytes, 0, utf8.RuneCountInString(text))
		for _, r := range text {
			if r > 255 {
				m.fail("character %q is not latin1", r)
			}
			out = append(out, byte(r))
		}
		return out
	case "frombuffer": // (buffer, dtype, shape, order)
		if m.str(arg(3)) != "C" {
			m.fail("an array that is not in C order")
		}
		a := new(Array)
		m.fill(a, arg(2), arg(1), arg(0))
		return a
	}
	m.fail("%s cannot be called", f)
	return nil
}

// build is BUILD: it gives an object its state.
func (m *machine) build(object any, state Tuple) {
	switch o := object.(type) {
	case *dtype: // (version, byte order, …)
		if len(state) < 2 {
			m.fail("the state of a dtype has %d parts", len(state))
		}
		if order := m.str(state[1]); order == ">" && itemSize(o.code) > 1 {
			m.fail("big-endian arrays are not supported")
		}
	case *Array: // (version, shape, dtype, fortran order, data)
		if len(state) != 5 {
			m.fail("the state of an array has %d parts, not 5", len(state))
		}
		if fortran, _ := state[3].(bool); fortran {
			m.fail("an array in Fortran order")
		}
		m.fill(o, state[1], state[2], state[4])
	default:
		m.fail("a state for %T", object)
	}
}

func (m *machine) fill(a *Array, shape, kind, data any) {
	dims, ok := shape.(Tuple)
	t, isType := kind.(*dtype)
	raw, isBytes := data.(Bytes)
	if !ok || !isType || !isBytes || len(dims) > 8 {
		m.fail("a malformed array")
	}
	a.Type, a.Data, a.Dims = t.code, raw, make([]int, len(dims))
	left := len(raw) / itemSize(t.code)
	size := 1
	for i, d := range dims {
		n, ok := d.(int64)
		if !ok || n < 0 || n > int64(left) {
			m.fail("dimension %v of an array of %d bytes", d, len(raw))
		}
		if n > 0 && size > left/int(n) {
			m.fail("the dimensions %v need more than the %d bytes there are", dims, len(raw))
		}
		a.Dims[i], size = int(n), size*int(n)
	}
	if size*itemSize(t.code) != len(raw) {
		m.fail("the dimensions %v do not make %d bytes", dims, len(raw))
	}
}

func (m *machine) str(v any) string {
	switch s := v.(type) {
	case string:
		return s
	case Bytes:
		return string(s)
	}
	m.fail("a string was expected, not %T", v)
	return ""
}
