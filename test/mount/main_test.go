// Package mount tests wholefs as its users meet it: the built binary, real
// mounts and real programs. Files are named for what they ask.
package mount

import (
	"testing"

	"github.com/wholefs/wholefs/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
