// Package crash tests what is left when the daemon is killed at any moment
// and when the disk is full.
//
// SIGKILL proves recovery, not durability: the page cache outlives the
// process. What a power loss leaves is for tests that cut the power.
package crash

import (
	"testing"

	"github.com/wholefs/wholefs/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
