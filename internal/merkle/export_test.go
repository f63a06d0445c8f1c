package merkle

// Above are the layers that t keeps above its own, from the roots of runs to the root.
func (t *Tree) Above() [][]byte { return t.above }

// Pad is the node at a level, 0 to 63, that covers nothing of a file.
func Pad(level int) Hash { return pads[level] }
