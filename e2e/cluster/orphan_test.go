package cluster_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/nexus-platform/reconciler/e2e/cluster"
)

// parentVariable makes this test binary the process that is killed below.
const parentVariable = "NEXUS_TEST_CLUSTER_PARENT"

func TestAClusterEndsWithItsParentHoweverThatDies(t *testing.T) {
	if os.Getenv(parentVariable) != "" {
		c, err := cluster.Start(t.Context(), cluster.Options{})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("cluster %s %s\n", c.Dir, c.Address)
		<-t.Context().Done() // killed before
	}
	parent := exec.Command(os.Args[0], "-test.run", t.Name())
	parent.Env = append(os.Environ(), parentVariable+"=1")
	parent.Stderr = os.Stderr
	stdout, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	defer parent.Wait()
	defer parent.Process.Kill()
	var dir, address string
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if words := strings.Fields(lines.Text()); len(words) == 3 && words[0] == "cluster" {
			dir, address = words[1], words[2]
			break
		}
	}
	if dir == "" {
		t.Fatal("the parent did not start a cluster")
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error {
		if conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address); err == nil {
			conn.Close()
			return fmt.Errorf("the API server still listens on %s", address)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			return fmt.Errorf("the temporary directory %s is still there", dir)
		}
		return nil
	})
}
