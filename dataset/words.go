package dataset

import (
	"fmt"
	"strings"
)

// unknown returns the error for a word that is none of the known ones: it names the nearest and all of them.
func unknown(what, word string, known []string) error {
	hint := ""
	best := len(word)/2 + 1
	for _, k := range known {
		if d := editDistance(strings.ToLower(word), k); d <= best {
			best, hint = d-1, fmt.Sprintf(" did you mean %q?", k)
		}
	}
	return fmt.Errorf("unknown %s %q;%s known are %s", what, word, hint, strings.Join(known, ", "))
}

// editDistance counts the insertions, deletions and replacements that turn a into b (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
