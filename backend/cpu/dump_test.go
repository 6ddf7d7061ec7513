package cpu

import (
	"fmt"
	"os"
	"strings"
)

func init() {
	if os.Getenv("CPU_DUMP") != "" {
		dumpPlan = func(b *planning, units []*unit) {
			for i, u := range units {
				if u.group == nil {
					fmt.Printf("%3d %v %v", i, u.node.op, u.node.dims)
					for _, in := range u.node.ins {
						fmt.Printf(" %d%v", in.root.id, in.dims)
					}
					fmt.Printf(" -> %d\n", u.node.id)
					continue
				}
				g := u.group
				mode := "map"
				if g.fold != nil {
					mode = fmt.Sprint("fold", g.fold)
				} else if g.split >= 0 {
					mode = fmt.Sprint("row", g.split)
				}
				made := map[*node]bool{}
				for _, n := range u.made {
					made[n] = true
				}
				fmt.Printf("%3d GROUP %v %s:\n", i, g.dims, mode)
				for _, n := range g.nodes {
					s := ""
					for _, in := range n.ins {
						op := ""
						if in.root.op < 1000 && in.root.op <= 2 {
							op = in.root.op.String()
						}
						s += fmt.Sprintf(" %d%v%s", in.root.id, in.strides, op)
					}
					star := ""
					if made[n] {
						star = " *"
					}
					name := n.op.String()
					if strings.HasPrefix(name, "OpType(") {
						name = fmt.Sprint(int(n.op))
					}
					fmt.Printf("        %d = %s(%s)%s\n", n.id, name, s, star)
				}
			}
		}
	}
}
