package proxy

import (
	"slices"
	"sync"
)

const (
	minPiece = 4 << 10  // bytes
	maxPiece = 64 << 10 // what one write takes
)

var freePieces = sync.Pool{New: func() any { b := make([]byte, 0, maxPiece); return &b }}

// pile is bytes that wait for a socket. They lie in pieces, so that however many there are none is copied again, and what
// was written is free for others at once.
type pile struct {
	pieces []*[]byte // those before head are gone
	head   int
	gone   int // bytes of the first one that were written
	size   int // bytes that wait
}

// add puts b behind what is there, in pieces of least bytes or more.
func (p *pile) add(b []byte, least int) {
	for len(b) > 0 {
		var last *[]byte
		if n := len(p.pieces); n > p.head {
			last = p.pieces[n-1]
		}
		if last == nil || len(*last) == cap(*last) {
			last = newPiece(max(least, p.size))
			if p.head > len(p.pieces)/2 { // it may never be empty: what is gone must not add up
				p.pieces, p.head = slices.Delete(p.pieces, 0, p.head), 0
			}
			p.pieces = append(p.pieces, last)
		}
		n := min(len(b), cap(*last)-len(*last))
		*last = append(*last, b[:n]...)
		p.size += n
		b = b[n:]
	}
}

func newPiece(size int) *[]byte {
	if size > maxPiece/4 {
		return freePieces.Get().(*[]byte)
	}
	b := make([]byte, 0, size)
	return &b
}

// first is what is to be written next; nil: nothing.
func (p *pile) first() []byte {
	if p.size == 0 {
		return nil
	}
	return (*p.pieces[p.head])[p.gone:]
}

// drop takes away the first n bytes, which are of first.
func (p *pile) drop(n int) {
	p.size -= n
	if p.gone += n; p.gone == len(*p.pieces[p.head]) {
		freePiece(p.next())
	}
}

// take is first, with whom it belongs to from now on: it is to be given to freePiece, or to putBack. Nobody else writes
// into it meanwhile.
func (p *pile) take() (piece *[]byte, b []byte) {
	b = p.first()
	p.size -= len(b)
	return p.next(), b
}

// next takes the first piece out.
func (p *pile) next() *[]byte {
	piece := p.pieces[p.head]
	p.pieces[p.head] = nil
	p.gone = 0
	if p.head++; p.size == 0 {
		p.pieces, p.head = p.pieces[:0], 0
	}
	return piece
}

// putBack puts the last n bytes of piece before all others.
func (p *pile) putBack(piece *[]byte, n int) {
	if p.head > 0 {
		p.head--
		p.pieces[p.head] = piece
	} else {
		p.pieces = slices.Insert(p.pieces, 0, piece)
	}
	p.gone = len(*piece) - n
	p.size += n
}

// addFirst puts b before all others, of which nothing was written.
func (p *pile) addFirst(b []byte) {
	var before pile
	before.add(b, maxPiece)
	before.pieces, before.size = append(before.pieces, p.pieces[p.head:]...), before.size+p.size
	*p = before
}

func (p *pile) clear() {
	for _, piece := range p.pieces[p.head:] {
		freePiece(piece)
	}
	*p = pile{}
}

func freePiece(piece *[]byte) {
	if cap(*piece) == maxPiece {
		*piece = (*piece)[:0]
		freePieces.Put(piece)
	}
}
