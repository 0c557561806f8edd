package session

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTransitionTable walks every cell of the table in the package
// documentation and compares it with what step does.
func TestTransitionTable(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	rows := map[event][]string{}
	for line := range strings.Lines(string(doc)) {
		f := strings.Fields(strings.TrimPrefix(line, "//"))
		if len(f) == 1+len(allStates) && slices.Contains(allEvents, event(f[0])) {
			rows[event(f[0])] = f[1:]
		}
	}
	require.Len(t, rows, len(allEvents), "the documented table has a row for each event")
	for _, ev := range allEvents {
		require.Contains(t, rows, ev)
		for i, from := range allStates {
			want := rows[ev][i]
			got, err := next(from, ev)
			if want == "-" {
				require.Error(t, err, "%s in %s", ev, from)
				require.Equal(t, from, got, "a refused event changes nothing")
				continue
			}
			require.NoError(t, err, "%s in %s", ev, from)
			require.Equal(t, State(want), got, "%s in %s", ev, from)
		}
	}
	require.Len(t, transitions, len(allEvents), "no event outside the table")
}
