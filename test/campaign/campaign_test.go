package main

import (
	"math/rand/v2"
	"testing"
)

// keyrow, Redis and MySQL are killed again and again under load: nothing that was acknowledged is lost.
func TestCampaign(t *testing.T) {
	seed := rand.Uint64()
	c := newCampaign(t, seed)
	for number := range 2 {
		if !c.round(number, killsRound) {
			t.Logf("to see it again: go run ./test/campaign -seed %d -round %d", seed, number)
			break
		}
	}
	t.Log(c)
}
