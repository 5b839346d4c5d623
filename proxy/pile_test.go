package proxy

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// Whatever is added, written in part and put back, the bytes come out in their order, and nobody's piece is lent twice.
func TestPile(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var next byte
	fresh := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			next++
			b[i] = next
		}
		return b
	}
	for _, least := range []int{minPiece, maxPiece} {
		var p pile
		var want []byte
		same := func(b []byte) {
			t.Helper()
			if !bytes.Equal(b, want[:len(b)]) {
				t.Fatalf("%d bytes of %d came out in another order", len(b), len(want))
			}
			want = want[len(b):]
		}
		for range 400 {
			switch n := rnd.IntN(1 + rnd.IntN(2*maxPiece)); rnd.IntN(7) {
			case 0, 1:
				b := fresh(n)
				p.add(b, least)
				want = append(want, b...)
			case 2:
				n = min(n, len(p.first()))
				if same(p.first()[:n]); n > 0 {
					p.drop(n)
				}
			case 3, 4, 5:
				if p.size == 0 {
					break
				}
				piece, b := p.take()
				n = min(n, len(b))
				more := fresh(rnd.IntN(2000))
				p.add(more, least)
				rest := bytes.Clone(want[:len(b)])
				want = append(want, more...)
				if same(b[:n]); n == len(b) {
					freePiece(piece)
				} else {
					p.putBack(piece, len(b)-n)
				}
				if !bytes.Equal(b[n:], rest[n:]) {
					t.Fatal("what was added went into a piece that was taken")
				}
			default:
				if p.gone == 0 {
					b := fresh(n)
					p.addFirst(b)
					want = append(b, want...)
				}
			}
			if p.size != len(want) {
				t.Fatalf("%d bytes are said to wait, and there are %d", p.size, len(want))
			}
		}
		for p.size > 0 {
			piece, b := p.take()
			same(b)
			freePiece(piece)
		}
		p.clear()
	}
}

// A pile that is never empty, as that of a client that is always a little behind, takes no more room for what is gone.
func TestPileNeverEmpty(t *testing.T) {
	var p pile
	b := make([]byte, maxPiece)
	p.add(b, maxPiece)
	for range 10_000 {
		p.add(b, maxPiece)
		p.drop(len(p.first()))
	}
	if p.size != maxPiece || cap(p.pieces) > 16 {
		t.Errorf("%d bytes wait, in %d places", p.size, cap(p.pieces))
	}
}
