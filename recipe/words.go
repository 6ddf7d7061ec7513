package recipe

import (
	"fmt"
	"strings"
)

// Nearest returns the known word that word was probably meant to be, or "" if none is near: the one that the fewest slips
// of the finger turn into it, at most two of them and at most a third of its letters, or one that it begins.
func Nearest(word string, known []string) string {
	best, at := 3, ""
	for _, k := range known {
		d := distance(word, k)
		if 3*d > max(len(k), 3) {
			continue
		}
		if d < best {
			best, at = d, k
		}
	}
	if at != "" || len(word) < 3 {
		return at
	}
	for _, k := range known {
		if strings.HasPrefix(k, word) {
			return k
		}
	}
	return ""
}

// didYouMean returns " (did you mean …?)" for the nearest word, if one is near.
func didYouMean(word string, known []string) string {
	if near := Nearest(word, known); near != "" {
		return fmt.Sprintf(" (did you mean %q?)", near)
	}
	return ""
}

// distance is the number of insertions, deletions, replacements and swaps of neighbours that turn a into b.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			d := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				d++
			}
			d = min(d, rows[i-1][j]+1, rows[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
