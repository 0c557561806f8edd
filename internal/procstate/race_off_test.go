//go:build !race

package procstate

const raceEnabled = false
