package backend

// A slab is memory for many short slices of one batch, which would otherwise be allocated one by one.
type slab[T any] []T

// slabMost is for how many elements a slab allocates at once, unless one slice has more.
const slabMost = 8 << 10

// take returns an empty slice with room for n elements. Of so many as this one there will be about more, which says
// how much to allocate.
func (s *slab[T]) take(n, more int) []T {
	if cap(*s)-len(*s) < n {
		*s = make([]T, 0, max(n, min(n*more, slabMost)))
	}
	start := len(*s)
	*s = (*s)[:start+n]
	return (*s)[start : start : start+n]
}
