package recipe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/dataset"
)

// Read reads the user's own files as the model was taught to see: a PNG or JPEG file or a folder of them, or a table as a
// CSV file. It returns the examples and a name for each. They have labels if every picture lies in a folder named as its
// class, or the table has the target column.
func (c *Card) Read(ctx context.Context, path string) (*dataset.Examples, []string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case c.Input.Kind == "tokens":
		return nil, nil, errors.New("the model reads text; only models of images and of tables read files so far")
	case c.Input.Kind == "image":
		return c.readImages(ctx, path, st.IsDir())
	case st.IsDir():
		return nil, nil, fmt.Errorf("%s is a folder; the model reads tables: give a CSV file", path)
	case c.Input.Columns == nil:
		return nil, nil, fmt.Errorf("the model's %d features come from no table, so that columns cannot be matched to them", c.Input.Shape[0])
	}
	return c.readTable(ctx, path)
}

func (c *Card) readTable(ctx context.Context, path string) (*dataset.Examples, []string, error) {
	header := "none"
	if c.Input.Columns.Header {
		header = "present"
	}
	split, err := dataset.Load(ctx, dataset.Spec{Name: "csv", Path: path, TestFraction: -1, Header: header, Encoding: c.Input.Columns})
	if err != nil {
		return nil, nil, err
	}
	e := split.Train
	e.Mean, e.Std = c.Input.Mean, c.Input.Std
	names := make([]string, e.Len())
	for i := range names {
		names[i] = fmt.Sprintf("row %d", i+1)
	}
	return e, names, nil
}

// maxImages bounds how many bytes of pixels are read at once.
const maxImages = 1 << 32

func (c *Card) readImages(ctx context.Context, path string, folder bool) (*dataset.Examples, []string, error) {
	files := []string{path}
	if folder {
		var err error
		if files, err = imagesIn(path); err != nil {
			return nil, nil, err
		}
		if len(files) == 0 {
			return nil, nil, fmt.Errorf("%s holds no .png, .jpg or .jpeg file", path)
		}
	}
	e := &dataset.Examples{Name: filepath.Base(path), Shape: c.Input.Shape, Classes: c.Classes, Mean: c.Input.Mean, Std: c.Input.Std}
	size := e.Size()
	if int64(len(files))*int64(size) > maxImages {
		return nil, nil, fmt.Errorf("%d images are too many at a time; give a folder with fewer", len(files))
	}
	names := make([]string, len(files))
	pixels := make([]uint8, len(files)*size)
	labelled := folder
	for i, file := range files {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, nil, err
		}
		if err := dataset.DecodeImage(pixels[i*size:(i+1)*size], raw, c.Input.Shape); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", file, err)
		}
		names[i] = file
		if folder {
			if names[i], err = filepath.Rel(path, file); err != nil {
				return nil, nil, err
			}
		}
		label := slices.Index(c.Classes, filepath.Base(filepath.Dir(file)))
		labelled = labelled && label >= 0
		e.Labels = append(e.Labels, int32(label))
	}
	if !labelled {
		e.Labels = nil
	}
	if c.Input.Bytes {
		e.U8 = pixels
		return e, names, nil
	}
	e.F32 = make([]float32, len(pixels))
	for i, v := range pixels {
		e.F32[i] = float32(v) / 255
	}
	return e, names, nil
}

// imagesIn lists the pictures in a folder and below it, sorted; hidden folders are passed over.
func imagesIn(dir string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != dir && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		if ext := strings.ToLower(filepath.Ext(path)); ext == ".png" || ext == ".jpg" || ext == ".jpeg" {
			files = append(files, path)
		}
		return nil
	})
	return files, err
}
