package dataset

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// cifarPixels is the size of a CIFAR image: 3 colour planes of 32×32 bytes.
const cifarPixels = 3 * 32 * 32

// cifarBatch is the content of one CIFAR file: labels and images, already NHWC.
type cifarBatch struct {
	labels []int32
	pixels []uint8
}

// ReadCIFAR reads records of CIFAR's binary version (Krizhevsky 2009) until r ends: a label byte (CIFAR-100: a coarse
// and a fine label, of which the fine one is kept), then 1024 red, 1024 green and 1024 blue bytes of a 32×32 image.
// Classes is 10 or 100. Images are returned NHWC. Name stands in the errors, with the byte.
func ReadCIFAR(r io.Reader, name string, classes int) (labels []int32, pixels []uint8, err error) {
	b, err := readCIFAR(&source{r: r, name: name}, classes)
	return b.labels, b.pixels, err
}

func readCIFAR(s *source, classes int) (cifarBatch, error) {
	var b cifarBatch
	head := 1
	if classes == 100 {
		head = 2
	}
	record := make([]byte, head+cifarPixels)
	for {
		at := s.off
		n, err := io.ReadFull(s, record)
		if n == 0 && errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return cifarBatch{}, fmt.Errorf("%s: byte %d: record %d is cut off: %d of %d bytes", s.name, at, len(b.labels), n, len(record))
		}
		if err != nil {
			return cifarBatch{}, err
		}
		label := record[head-1]
		if int(label) >= classes {
			return cifarBatch{}, fmt.Errorf("%s: byte %d: record %d has label %d, outside 0..%d", s.name, at, len(b.labels), label, classes-1)
		}
		b.add(int32(label), record[head:])
	}
	if len(b.labels) == 0 {
		return cifarBatch{}, s.errf("no records")
	}
	return b, nil
}

// add appends an image given as three planes.
func (b *cifarBatch) add(label int32, planes []byte) {
	b.labels = append(b.labels, label)
	at := len(b.pixels)
	b.pixels = slices.Grow(b.pixels, cifarPixels)[:at+cifarPixels]
	out := b.pixels[at:]
	for i := range 1024 {
		out[3*i], out[3*i+1], out[3*i+2] = planes[i], planes[1024+i], planes[2048+i]
	}
}

// cifarKind tells CIFAR-10 from CIFAR-100 by file names and normalisation.
type cifarKind struct {
	name      string
	classes   int
	train     []string // base names without .bin
	test      string
	meta      []string // files with one class name a line
	mean, std []float32
}

// Means of both are those of the training images. CIFAR-10's deviations .2023 .1994 .2010 are the ones that HeteroFL and
// many others divide by: the mean over images of each image's own deviation, not that of all pixels (.2470 .2435 .2616).
func cifar10() cifarKind {
	return cifarKind{
		name: "cifar10", classes: 10,
		train: []string{"data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"},
		test:  "test_batch", meta: []string{"batches.meta.txt"},
		mean: []float32{0.4914, 0.4822, 0.4465}, std: []float32{0.2023, 0.1994, 0.2010},
	}
}

func cifar100() cifarKind {
	return cifarKind{
		name: "cifar100", classes: 100, train: []string{"train"}, test: "test", meta: []string{"fine_label_names.txt"},
		mean: []float32{0.5071, 0.4865, 0.4409}, std: []float32{0.2673, 0.2564, 0.2762},
	}
}

// loadCIFAR reads a folder that holds the binary version (also packed, each file with .gz or .bz2) or the python
// version, directly or in the folder that the official archive makes; or the official .tar.gz of either itself. Missing
// training batches are allowed as long as one is there.
func loadCIFAR(ctx context.Context, k cifarKind, where string) (*Split, error) {
	st, err := os.Stat(where)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return k.fromArchive(where)
	}
	dir := where
	official := map[int]string{10: "cifar-10", 100: "cifar-100"}[k.classes]
	for _, sub := range []string{"", official + "-batches-bin", official + "-batches-py", official + "-binary", official + "-python"} {
		if _, err := k.file(filepath.Join(where, sub), k.test); err == nil {
			dir = filepath.Join(where, sub)
			break
		}
	}
	testPath, err := k.file(dir, k.test)
	if err != nil {
		for _, archive := range []string{official + "-binary.tar.gz", official + "-python.tar.gz"} {
			if p := filepath.Join(where, archive); exists(p) {
				return k.fromArchive(p)
			}
		}
		return nil, err
	}
	paths := []string{testPath}
	for _, name := range k.train {
		p, err := k.file(dir, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		paths = append(paths, p)
	}
	if len(paths) == 1 {
		return nil, fmt.Errorf("%w: no training batch (%s.bin, also .gz or .bz2) in %s", fs.ErrNotExist, strings.Join(k.train, ".bin, "), dir)
	}
	batches := make([]cifarBatch, len(paths))
	err = parallel(ctx, len(paths), func(i int) error {
		s, err := open(paths[i])
		if err != nil {
			return err
		}
		defer s.Close()
		batches[i], err = k.read(s, strings.Contains(filepath.Base(paths[i]), ".bin"))
		return err
	})
	if err != nil {
		return nil, err
	}
	split := &Split{Train: k.examples(batches[1:]), Test: k.examples(batches[:1])}
	return split, k.nameClasses(split, dir)
}

func exists(p string) bool { _, err := os.Stat(p); return err == nil }

// file finds a batch by its base name: binary first, then python.
func (k cifarKind) file(dir, base string) (string, error) { return find(dir, base+".bin", base) }

func (k cifarKind) read(s *source, binary bool) (cifarBatch, error) {
	if binary {
		return readCIFAR(s, k.classes)
	}
	return readCIFARPython(s, k.classes)
}

func (k cifarKind) examples(batches []cifarBatch) *Examples {
	e := &Examples{Name: k.name, Shape: []int{32, 32, 3}, Mean: k.mean, Std: k.std}
	total := 0
	for _, b := range batches {
		total += len(b.labels)
	}
	e.U8, e.Labels = make([]uint8, 0, total*cifarPixels), make([]int32, 0, total)
	for i := range batches {
		e.Labels = append(e.Labels, batches[i].labels...)
		e.U8 = append(e.U8, batches[i].pixels...)
		batches[i] = cifarBatch{}
	}
	return e
}

// nameClasses reads the class names of the folder, or numbers the classes if it has none.
func (k cifarKind) nameClasses(split *Split, dir string) error {
	names := make([]string, k.classes)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	if p, err := find(dir, k.meta...); err == nil {
		s, err := open(p)
		if err != nil {
			return err
		}
		defer s.Close()
		text, err := io.ReadAll(io.LimitReader(s, 1<<16))
		if err != nil {
			return err
		}
		lines := strings.Fields(string(text))
		if len(lines) != k.classes {
			return fmt.Errorf("%s: %d class names for %d classes", p, len(lines), k.classes)
		}
		names = lines
	}
	split.Train.Classes, split.Test.Classes = names, names
	return nil
}

// fromArchive reads the official .tar.gz of either version.
func (k cifarKind) fromArchive(file string) (*Split, error) {
	s, err := open(file)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	found := make(map[string]cifarBatch)
	t := tar.NewReader(s)
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, s.errf("not a readable tar archive: %w", err)
		}
		base, binary := strings.CutSuffix(path.Base(h.Name), ".bin")
		if h.Typeflag != tar.TypeReg || (base != k.test && !slices.Contains(k.train, base)) {
			continue
		}
		b, err := k.read(&source{r: t, name: file + ":" + h.Name}, binary)
		if err != nil {
			return nil, err
		}
		found[base] = b
	}
	test, ok := found[k.test]
	if !ok {
		return nil, fmt.Errorf("%s: no %s in the archive", file, k.test)
	}
	var train []cifarBatch
	for _, name := range k.train {
		if b, ok := found[name]; ok {
			train = append(train, b)
		}
	}
	if len(train) == 0 {
		return nil, fmt.Errorf("%s: no training batch in the archive", file)
	}
	split := &Split{Train: k.examples(train), Test: k.examples([]cifarBatch{test})}
	return split, k.nameClasses(split, filepath.Dir(file))
}
