//go:build race

package harness

// raceDetector: the tests were built with -race, so keyrow is built with it too.
const raceDetector = true
