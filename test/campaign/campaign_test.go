package main

import (
	"math/rand/v2"
	"testing"
)

// keyrow, Redis and MySQL are killed again and again under load: nothing that was acknowledged is lost.
func TestCampaign(t *testing.T) {
	t.Parallel()
	c := newCampaign(t, rand.Uint64())
	for number := range 2 {
		if err := c.again(number); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(c)
}
