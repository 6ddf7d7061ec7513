package dataset

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	_ "image/jpeg" // the two formats that folders of images are made of
	_ "image/png"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/image/draw"
)

const (
	maxPixels    = 1 << 26 // of one picture file, before resizing
	maxImageFile = 1 << 28 // bytes
)

// loadImages reads a folder of PNG and JPEG files, one sub-folder a class, with the parts train/ and test/ (or val/,
// valid/) above the classes if there are any. Pictures are resized to Size×Size.
func loadImages(ctx context.Context, s Spec) (*Split, error) {
	shape := []int{s.Size, s.Size, s.Channels}
	if s.Size == 0 {
		shape[0], shape[1] = 32, 32
	}
	if s.Channels == 0 {
		shape[2] = 3
	}
	if shape[0] < 1 || shape[0] > 4096 {
		return nil, fmt.Errorf("size %d is outside 1..4096", shape[0])
	}
	trainDir, testDir := imageParts(s)
	classes, err := classFolders(trainDir)
	if err != nil {
		return nil, err
	}
	train, err := readImages(ctx, s.Name, trainDir, classes, shape)
	if err != nil {
		return nil, err
	}
	var split *Split
	if testDir == "" {
		split = s.holdOut(train)
	} else {
		of, err := classFolders(testDir)
		if err != nil {
			return nil, err
		}
		for _, c := range of {
			if !slices.Contains(classes, c) {
				return nil, fmt.Errorf("%s: class %q is not among the training classes %q", testDir, c, classes)
			}
		}
		split = &Split{Train: train}
		if split.Test, err = readImages(ctx, s.Name, testDir, classes, shape); err != nil {
			return nil, err
		}
	}
	split.Train.Normalise(10_000)
	if split.Test != nil {
		split.Test.Mean, split.Test.Std = split.Train.Mean, split.Train.Std
	}
	return split, nil
}

// imageParts finds the folders of the training and the test part; the latter is "" if there is none.
func imageParts(s Spec) (train, test string) {
	train, test = s.Path, s.TestPath
	if sub := filepath.Join(s.Path, "train"); exists(sub) {
		train = sub
		for _, name := range []string{"test", "val", "valid"} {
			if sub := filepath.Join(s.Path, name); test == "" && exists(sub) {
				test = sub
			}
		}
	}
	return train, test
}

// classFolders returns the names of the sub-folders, sorted.
func classFolders(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var classes []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			classes = append(classes, e.Name())
		}
	}
	if len(classes) < 2 {
		return nil, fmt.Errorf("%s holds %d sub-folders; one for each of at least two classes is needed", dir, len(classes))
	}
	return classes, nil
}

func readImages(ctx context.Context, name, dir string, classes []string, shape []int) (*Examples, error) {
	var paths []string
	e := &Examples{Name: name, Shape: shape, Classes: classes}
	for label, class := range classes {
		err := filepath.WalkDir(filepath.Join(dir, class), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				if os.IsNotExist(err) {
					return nil // a test part may lack a class
				}
				return err
			}
			if !d.IsDir() && isPicture(path) {
				paths = append(paths, path)
				e.Labels = append(e.Labels, int32(label))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("%s: no .png, .jpg or .jpeg file in the class folders", dir)
	}
	size := e.Size()
	if len(paths) > maxBytes/size {
		return nil, fmt.Errorf("%s: %d images of %v exceed %d bytes; choose a smaller size", dir, len(paths), shape, int64(maxBytes))
	}
	e.U8 = make([]uint8, len(paths)*size)
	err := parallel(ctx, len(paths), func(i int) error {
		return readImage(e.U8[i*size:(i+1)*size], paths[i], shape)
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

func readImage(dst []uint8, path string, shape []int) error {
	s, err := open(path)
	if err != nil {
		return err
	}
	defer s.Close()
	raw, err := s.rest(maxImageFile)
	if err != nil {
		return err
	}
	if err := DecodeImage(dst, raw, shape); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// DecodeImage decodes a PNG or JPEG file, resizes it to shape [height, width, channels] with a Catmull-Rom filter and
// writes it to dst, NHWC. One channel is luma (ITU-R 601), three are red, green, blue; transparent parts show black. It
// fails on a damaged file or one of more than 2^26 pixels, and panics if dst does not have the size of shape or channels
// is not 1 or 3.
func DecodeImage(dst []uint8, file []byte, shape []int) error {
	if len(shape) != 3 || len(dst) != shape[0]*shape[1]*shape[2] || shape[2] != 1 && shape[2] != 3 {
		panic(fmt.Sprintf("dataset: DecodeImage of shape %v into %d bytes", shape, len(dst)))
	}
	head, _, err := image.DecodeConfig(bytes.NewReader(file))
	if err != nil {
		return fmt.Errorf("not a readable PNG or JPEG file: %w", err)
	}
	if head.Width < 1 || head.Height < 1 || head.Width > maxPixels/head.Height {
		return fmt.Errorf("a picture of %d×%d pixels; at most %d are supported", head.Width, head.Height, maxPixels)
	}
	src, _, err := image.Decode(bytes.NewReader(file))
	if err != nil {
		return fmt.Errorf("damaged picture: %w", err)
	}
	height, width := shape[0], shape[1]
	to := image.NewRGBA(image.Rect(0, 0, width, height))
	if b := src.Bounds(); b.Dx() == width && b.Dy() == height {
		draw.Draw(to, to.Bounds(), src, b.Min, draw.Src)
	} else {
		draw.CatmullRom.Scale(to, to.Bounds(), src, b, draw.Src, nil)
	}
	for i := range height * width {
		p := to.Pix[4*i:]
		if shape[2] == 1 {
			dst[i] = color.GrayModel.Convert(color.RGBA{p[0], p[1], p[2], 255}).(color.Gray).Y
		} else {
			copy(dst[3*i:], p[:3])
		}
	}
	return nil
}
