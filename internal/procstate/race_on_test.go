//go:build race

package procstate

const raceEnabled = true
