package vec

import "flag"

var exhaustive = flag.Bool("exhaustive", false, "sweep the float32 line in steps of 257 instead of 40009 bit patterns")
