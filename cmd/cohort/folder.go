package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/record"
)

// runsRoot is the folder that runs are kept in: $COHORT_RUNS, or "runs" in the working directory.
func runsRoot() string {
	return filepath.Clean(cmp.Or(os.Getenv("COHORT_RUNS"), "runs"))
}

// newFolder returns the path of a folder that does not exist yet, for a run of that name begun at that time.
func newFolder(name string, at time.Time) string {
	base := filepath.Join(runsRoot(), slug(name)+"-"+at.Format("20060102-150405"))
	dir := base
	for i := 2; ; i++ {
		if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
			return dir
		}
		dir = fmt.Sprintf("%s-%d", base, i)
	}
}

// slug makes a name fit for a folder of any system.
func slug(name string) string {
	s := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '-'
	}, name)
	return cmp.Or(strings.Trim(s, "-."), "run")
}

// findRun returns the folder of a run: a path, or a name in the folder of runs.
func findRun(name string) (string, error) {
	if isRun(name) {
		return filepath.Clean(name), nil
	}
	if dir := filepath.Join(runsRoot(), name); filepath.Base(name) == name && isRun(dir) {
		return dir, nil
	}
	if st, err := os.Stat(name); err == nil && st.IsDir() {
		return "", usagef("%s is no run: it has no %s", name, record.MetaName)
	}
	hint := fmt.Sprintf("there are none in %s yet", runsRoot())
	if names := runNames(); len(names) > 0 {
		hint = fmt.Sprintf("\"cohort runs\" lists those in %s", runsRoot())
		if near := recipe.Nearest(name, names); near != "" {
			hint = fmt.Sprintf("did you mean %s? %s", near, hint)
		}
	}
	return "", usagef("there is no run %q; %s", name, hint)
}

func isRun(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, record.MetaName))
	return err == nil
}

// runNames returns the names of the runs in the folder of runs, oldest first.
func runNames() []string {
	entries, err := record.List(runsRoot())
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, filepath.Base(e.Dir))
	}
	return names
}

// latestUnfinished returns the newest run that can be taken up again.
func latestUnfinished() (string, error) {
	entries, err := record.List(runsRoot())
	if err != nil {
		return "", err
	}
	for _, e := range slices.Backward(entries) {
		if e.Err == nil && !e.Locked && e.State != record.Finished {
			return e.Dir, nil
		}
	}
	return "", usagef("no run in %s waits to be resumed; name one if it lies elsewhere", runsRoot())
}
