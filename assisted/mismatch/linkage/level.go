package linkage

import (
	"strings"
	"unicode"
)

// Level is how far two values of a field agree.
type Level uint8

// Levels of agreement. Missing says nothing: at least one of the values is not there.
const (
	Missing Level = iota
	Different
	Close
	Exact
	levels
)

// closeWords is the Jaro–Winkler similarity from which words are close.
const closeWords = 0.88

// Normal returns a value as it is compared: in lower case, without outer spaces, runs of spaces as one.
func Normal(value string) string { return strings.Join(strings.Fields(strings.ToLower(value)), " ") }

// Agree compares two normal values. Values with digits, such as dates and numbers of houses, are close if one typing mistake lies
// between them: a sign too much, too little or wrong, or two that changed places. Others are close if their [JaroWinkler]
// similarity is at least 0.88.
func Agree(a, b string) Level {
	switch {
	case a == "" || b == "":
		return Missing
	case a == b:
		return Exact
	}
	near := false
	if strings.ContainsFunc(a, unicode.IsDigit) && strings.ContainsFunc(b, unicode.IsDigit) {
		near = oneMistake([]rune(a), []rune(b))
	} else {
		near = JaroWinkler(a, b) >= closeWords
	}
	if near {
		return Close
	}
	return Different
}

// oneMistake reports whether the distance of Damerau between two different strings is 1.
func oneMistake(a, b []rune) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	if len(b)-len(a) > 1 {
		return false
	}
	from, ends := 0, 0 // signs that are the same at the beginning, and at the end of what follows
	for from < len(a) && a[from] == b[from] {
		from++
	}
	for ends < len(a)-from && a[len(a)-1-ends] == b[len(b)-1-ends] {
		ends++
	}
	a, b = a[from:len(a)-ends], b[from:len(b)-ends]
	switch len(b) {
	case 1:
		return len(a) <= 1
	case 2:
		return len(a) == 2 && a[0] == b[1] && a[1] == b[0]
	}
	return false
}

// JaroWinkler returns the similarity of two strings, from 0 to 1 (Winkler 1990). With m signs in common, each not farther from its
// like than half the longer string, and t of them in another order,
//
//	jaro = (m/|a| + m/|b| + (m − ⌊t/2⌋)/m)/3,  similarity = jaro + 0.1·p·(1 − jaro)
//
// where p is how many of the first four signs are the same.
func JaroWinkler(a, b string) float64 {
	x, y := []rune(a), []rune(b)
	if len(x) == 0 || len(y) == 0 {
		if len(x) == len(y) {
			return 1
		}
		return 0
	}
	reach := max(len(x), len(y))/2 - 1
	var common []rune // of x, in its order
	taken := make([]bool, len(y))
	for i, c := range x {
		for j := max(0, i-reach); j <= min(len(y)-1, i+reach); j++ {
			if !taken[j] && y[j] == c {
				taken[j] = true
				common = append(common, c)
				break
			}
		}
	}
	if len(common) == 0 {
		return 0
	}
	moved, at := 0, 0
	for j, c := range y {
		if taken[j] {
			if c != common[at] {
				moved++
			}
			at++
		}
	}
	m := float64(len(common))
	jaro := (m/float64(len(x)) + m/float64(len(y)) + (m-float64(moved/2))/m) / 3
	prefix := 0
	for prefix < min(4, len(x), len(y)) && x[prefix] == y[prefix] {
		prefix++
	}
	return jaro + 0.1*float64(prefix)*(1-jaro)
}
