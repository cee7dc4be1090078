// Package clustertest gives the tests of one process a control plane to share.
package clustertest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/nexus-platform/reconciler/e2e/cluster"
)

// Variable names a kubeconfig of a devcluster that runs already, to be used instead of starting one.
const Variable = "NEXUS_TEST_KUBECONFIG"

// shared is the one cluster of this process. Tests of a process share nothing but its variables.
var shared struct {
	once    sync.Once
	cluster *cluster.Cluster
	err     error
}

// Main runs the tests, stops the shared cluster and exits. To be called from TestMain by every package that uses Shared.
// A process that dies without getting here takes its cluster with it all the same. m is the *testing.M, or something around it that
// stops, after the tests, what needs the cluster until then.
func Main(m interface{ Run() int }) {
	code := m.Run()
	if shared.cluster != nil {
		if err := shared.cluster.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// Shared returns the cluster that all tests of this process use, started when first asked for.
// Tests that halt or kill theirs start their own with cluster.Start.
func Shared(tb testing.TB) *cluster.Cluster {
	tb.Helper()
	shared.once.Do(func() {
		if kubeconfig := os.Getenv(Variable); kubeconfig != "" {
			shared.cluster, shared.err = cluster.Attach(kubeconfig)
			return
		}
		// Not a test's context: the cluster outlives the test that asks first.
		shared.cluster, shared.err = cluster.Start(context.Background(), cluster.Options{Progress: os.Stderr})
	})
	if shared.err != nil {
		tb.Fatal(shared.err)
	}
	return shared.cluster
}

// Config returns the shared cluster's administrator configuration.
func Config(tb testing.TB) *rest.Config {
	tb.Helper()
	cfg, err := Shared(tb).Config()
	if err != nil {
		tb.Fatal(err)
	}
	return cfg
}

// Namespace makes a namespace for one test in the shared cluster and returns its name. It is deleted after the test, without
// waiting for its content.
func Namespace(tb testing.TB) string {
	tb.Helper()
	client, err := kubernetes.NewForConfig(Config(tb))
	if err != nil {
		tb.Fatal(err)
	}
	namespaces := client.CoreV1().Namespaces()
	ns, err := namespaces.Create(tb.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: prefix(tb.Name())},
	}, metav1.CreateOptions{})
	if err != nil {
		tb.Fatalf("make namespace: %v", err)
	}
	tb.Cleanup(func() {
		// The test's own context has ended by now.
		if err := namespaces.Delete(context.Background(), ns.Name, metav1.DeleteOptions{}); err != nil {
			tb.Errorf("delete namespace %s: %v", ns.Name, err)
		}
	})
	return ns.Name
}

// prefix makes the beginning of a namespace's name from a test's.
func prefix(test string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		default:
			return '-'
		}
	}, test)
	return name[:min(len(name), 40)] + "-"
}
