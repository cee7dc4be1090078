package faults

import (
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
)

// TestAFullDisk lets the disk of the daemon's cache be full when a commit arrives: nothing is written, what is deployed is looked
// after, the reason is told; when there is room again, the commit is released without a restart.
func TestAFullDisk(t *testing.T) {
	l, err := newLane(t, newSite(t), laneOptions{small: true, disk: "2m"})
	if err != nil {
		t.Fatal(err)
	}
	l.begin(t.Context())
	l.proxy.Arm()
	noise := make([]byte, 8<<20)
	_, _ = rand.Read(noise) // never fails
	l.repo.Write("noise.bin", string(noise))
	commit := l.push("next, and a file that does not fit", l.next(false))
	l.await(t, "the disk is full", func() bool { return strings.Contains(l.condition(), "space") })
	tick := l.before.tick
	l.edit(t, "settings")
	l.await(t, "drift is healed meanwhile", func() bool {
		w, err := l.look(t.Context())
		return err == nil && difference(l.old, w.generalized(l.group)) == "" && w.tick == tick
	})
	for _, w := range l.proxy.Writes() {
		if w.Step != proxy.Projection && w.Step != proxy.Unnumbered && w.Step != proxy.Repair {
			t.Errorf("with a full disk it wrote %s", w)
		}
	}
	for _, p := range l.daemons {
		if out, err := within(p, "mount", "-o", "remount,size=64m", l.cache(0)).CombinedOutput(); err != nil {
			t.Fatalf("make room: %v\n%s", err, out)
		}
	}
	if end, err := l.ends(commit); err != nil || end != "Succeeded" {
		t.Fatalf("with room again the release ended as %q: %v", end, err)
	}
	if end := l.checkWorld(t.Context(), commit); end != "new" || len(l.violations) > 0 {
		t.Errorf("the world is %s: %v", end, l.violations)
	}
}

// await waits until something is so.
func (l *lane) await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for limit := time.After(deadline); !is(); {
		select {
		case <-limit:
			t.Fatalf("not in time: %s: %s", what, l.condition())
		case <-time.After(interval / 10):
		}
	}
}

// cache is the folder of a daemon's mirror.
func (l *lane) cache(i int) string {
	return filepath.Join(l.dir, l.ns+"-"+strconv.Itoa(i)+".cache")
}

// onDisk is a command whose folder is a file system of its own, of this size, that nobody else sees.
func onDisk(size, dir, binary string, args []string) (string, []string) {
	own := []string{"--mount", "sh", "-c", `mount -t tmpfs -o size="$1" cache "$2" && shift 2 && exec "$@"`, "sh", size, dir, binary}
	if os.Getuid() != 0 {
		own = append([]string{"--map-root-user"}, own...)
	}
	return "unshare", append(own, args...)
}

// within is a command that sees the file systems of a process.
func within(p *process, args ...string) *exec.Cmd {
	enter := []string{"--target", strconv.Itoa(p.cmd.Process.Pid), "--mount"}
	if os.Getuid() != 0 {
		enter = append(enter, "--user", "--preserve-credentials")
	}
	return exec.Command("nsenter", append(enter, args...)...)
}
