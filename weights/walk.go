package weights

// run is n neighbouring elements (or positions of an axis) that start at g in the whole and at l in the slice.
type run struct{ g, l, n int }

// walk visits the coordinates of axes in a tensor of the given shape row by row: visit gets the offsets of a row in the
// whole and in the slice, and the row's runs, counted from there. With a cover, only the coordinates that are also in cover
// are visited; l still counts in the slice of axes. The axes and the cover must fit the shape; none means everything.
func walk(shape []int, axes, cover []Axis, visit func(g, l int, runs []run)) {
	rank := len(shape)
	if rank == 0 {
		visit(0, 0, []run{{0, 0, 1}})
		return
	}
	w := walker{make([]axisWalk, rank), visit}
	gStride, lStride := 1, 1
	for i := rank - 1; i >= 0; i-- {
		var a Axis
		if len(axes) > 0 {
			a = axes[i]
		}
		runs := a.runs(shape[i])
		if len(cover) > 0 {
			runs = a.within(cover[i], shape[i])
		}
		w.axes[i] = axisWalk{runs, gStride, lStride}
		gStride *= shape[i]
		lStride *= a.Len(shape[i])
	}
	// Trailing axes that are taken whole form one block with the axis before them.
	last := rank - 1
	for last > 0 && len(w.axes[last].runs) == 1 && w.axes[last].runs[0] == (run{0, 0, shape[last]}) {
		last--
	}
	w.axes = w.axes[:last+1]
	if unit := w.axes[last].gStride; unit != 1 { // equal to lStride, as the axes behind are whole
		for i, r := range w.axes[last].runs {
			w.axes[last].runs[i] = run{r.g * unit, r.l * unit, r.n * unit}
		}
	}
	w.walk(0, 0, 0)
}

type walker struct {
	axes  []axisWalk
	visit func(g, l int, runs []run)
}

type axisWalk struct {
	runs             []run
	gStride, lStride int
}

func (w *walker) walk(axis, g, l int) {
	a := &w.axes[axis]
	if axis == len(w.axes)-1 {
		w.visit(g, l, a.runs)
		return
	}
	for _, r := range a.runs {
		for k := range r.n {
			w.walk(axis+1, g+(r.g+k)*a.gStride, l+(r.l+k)*a.lStride)
		}
	}
}

// runs returns the kept positions of an axis of that size as runs. The caller may change them.
func (a Axis) runs(size int) []run {
	switch a.kind {
	case axisHeads:
		if a.n == 0 {
			return nil
		}
		w := size / a.heads
		if w == a.n {
			return []run{{0, 0, size}}
		}
		runs := make([]run, a.heads)
		for h := range runs {
			runs[h] = run{h * w, h * a.n, a.n}
		}
		return runs
	case axisList:
		var runs []run
		for l, g := range a.list {
			runs = extend(runs, int(g), l)
		}
		return runs
	}
	n := a.Len(size)
	if n == 0 {
		return nil
	}
	return []run{{0, 0, n}}
}

// within returns the runs of the positions that both a and c keep, in the order of c; l counts in the slice of a.
func (a Axis) within(c Axis, size int) []run {
	if a.kind == axisAll || a.kind == axisPrefix {
		n := a.Len(size)
		if c.kind == axisAll || c.kind == axisPrefix {
			return Prefix(min(n, c.Len(size))).runs(size)
		}
		var runs []run
		for _, g := range c.Positions(size) {
			if int(g) < n {
				runs = extend(runs, int(g), int(g))
			}
		}
		return runs
	}
	local := make([]int, size) // 1 + the position in the slice of a
	for l, g := range a.Positions(size) {
		local[g] = l + 1
	}
	var runs []run
	for _, g := range c.Positions(size) {
		if l := local[g] - 1; l >= 0 {
			runs = extend(runs, int(g), l)
		}
	}
	return runs
}

// extend appends one position to runs, to the last run if it goes on there.
func extend(runs []run, g, l int) []run {
	if k := len(runs) - 1; k >= 0 && runs[k].g+runs[k].n == g && runs[k].l+runs[k].n == l {
		runs[k].n++
		return runs
	}
	return append(runs, run{g, l, 1})
}
