package dataset

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

const (
	maxTextBytes = 1 << 30
	endOfLine    = "<eos>"
	unknownToken = "<unk>"
)

// loadText reads token files: tokens are what stands between blanks, and every line ends with <eos>. The vocabulary is
// the training part's, in order of first appearance; a test token outside it becomes <unk>, which is added to the
// vocabulary if it is needed and not there.
//
// The text is cut into TextRows (TestRows) rows of equal length, end to end, the rest dropped; a row is cut into examples
// of Tokens tokens in order, and again the rest dropped. The key of an example is its row, so that the "natural" scheme
// with as many clients as rows gives each client one row, its examples in order (Diao et al., arXiv 2010.01264).
func loadText(s Spec, trainPath, testPath string) (*Split, error) {
	v := &vocabulary{id: make(map[string]int32)}
	text, err := v.read(trainPath, true)
	if err != nil {
		return nil, err
	}
	train, err := s.examples(text, s.TextRows, 100, trainPath)
	if err != nil {
		return nil, err
	}
	split := &Split{Train: train}
	if testPath != "" {
		text, err := v.read(testPath, false)
		if err != nil {
			return nil, err
		}
		if split.Test, err = s.examples(text, s.TestRows, 10, testPath); err != nil {
			return nil, err
		}
		split.Test.Classes = v.words
	}
	train.Classes = v.words
	return split, nil
}

// namedText loads a data set of known file names from its folder.
func (s Spec) namedText(dir, train, test string) (*Split, error) {
	trainPath, err := find(dir, train)
	if err != nil {
		return nil, err
	}
	testPath, err := find(dir, test)
	if err != nil {
		return nil, err
	}
	return loadText(s, trainPath, testPath)
}

// vocabulary numbers tokens by first appearance.
type vocabulary struct {
	words []string
	id    map[string]int32
	fixed bool // it was given
}

// fix gives the vocabulary its words, if there are any.
func (v *vocabulary) fix(words []string) {
	for i, w := range words {
		v.id[w] = int32(i)
	}
	v.words, v.fixed = slices.Clone(words), len(words) > 0
}

func (v *vocabulary) number(word []byte, grow bool) int32 {
	if id, ok := v.id[string(word)]; ok {
		return id
	}
	if !grow && string(word) != unknownToken {
		return v.number([]byte(unknownToken), true)
	}
	w := string(word)
	v.id[w] = int32(len(v.words))
	v.words = append(v.words, w)
	return v.id[w]
}

// read returns the token ids of a file.
func (v *vocabulary) read(path string, grow bool) ([]int32, error) {
	s, err := open(path)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	raw, err := s.rest(maxTextBytes)
	if err != nil {
		return nil, err
	}
	if i := bytes.IndexByte(raw, 0); i >= 0 {
		return nil, fmt.Errorf("%s: byte %d: a zero byte; this is not a text file", path, i)
	}
	var ids []int32
	for line := range bytes.Lines(raw) {
		for word := range bytes.FieldsSeq(line) {
			ids = append(ids, v.number(word, grow))
		}
		ids = append(ids, v.number([]byte(endOfLine), grow))
	}
	return ids, nil
}

// examples cuts a text into rows and the rows into examples.
func (s Spec) examples(text []int32, rows, byDefault int, path string) (*Examples, error) {
	tokens := s.Tokens
	if tokens == 0 {
		tokens = 64
	}
	if rows == 0 {
		rows = byDefault
	}
	each := len(text) / rows / tokens
	if each == 0 {
		return nil, fmt.Errorf("%s: %d tokens do not fill %d rows of %d tokens; take fewer rows or tokens", path, len(text), rows, tokens)
	}
	e := &Examples{Name: s.Name, Shape: []int{tokens}, Tok: make([]int32, 0, rows*each*tokens)}
	width := len(fmt.Sprint(rows - 1))
	for r := range rows {
		row := text[r*(len(text)/rows):]
		e.Tok = append(e.Tok, row[:each*tokens]...)
		e.Keys = append(e.Keys, slices.Repeat([]string{fmt.Sprintf("row-%0*d", width, r)}, each)...)
	}
	return e, nil
}

// TokenSet returns the sorted distinct tokens of the view; nil if the data is not text. It is what a label set is for
// classes.
func (v View) TokenSet() []int32 {
	if !v.Data.IsText() {
		return nil
	}
	seen := make([]bool, len(v.Data.Classes))
	size := v.Data.Size()
	var set []int32
	for _, r := range v.Rows {
		for _, t := range v.Data.Tok[int(r)*size : (int(r)+1)*size] {
			if !seen[t] {
				seen[t] = true
				set = append(set, t)
			}
		}
	}
	slices.Sort(set)
	return set
}

// Text returns an example of a text as words, for people to read.
func (e *Examples) Text(row int) string {
	size := e.Size()
	var b strings.Builder
	for i, t := range e.Tok[row*size : (row+1)*size] {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(e.Classes[t])
	}
	return b.String()
}
