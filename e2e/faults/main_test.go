// Package faults tries to break the release transaction: it does every planned fault to every write of a release and looks what is left.
package faults

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/e2e/cluster"
	"github.com/nexus-platform/reconciler/e2e/cluster/clustertest"
)

var (
	full  = flag.Bool("full", false, "sweep everything instead of a sample")
	lanes = flag.Int("lanes", 3, "runs side by side, each with an environment and a daemon of its own")
	seed  = flag.Uint64("seed", 0, "of the sample and of the soak; 0: a new one, which is printed, but always the same for what -full chooses")
	state = flag.String("state", "", "folder of results: a sweep that was interrupted goes on from it; empty: none is kept")
	shard = flag.String("shard", "1/1", "K/N: the Kth of N parts of the sweep")
	only  = flag.String("only", "", "do only the runs whose names match this regular expression")
	tell  = flag.Bool("report", false, "only print the figures of the results in -state")
	soak  = flag.Duration("soak", 0, "how long the soak lasts; 0: a few rounds")
)

func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == baselineVerb {
		fmt.Fprintln(os.Stderr, baselineMain(os.Args[2], os.Args[3], os.Args[4]))
		os.Exit(1)
	}
	log.SetLogger(logr.Discard())
	flag.Parse()
	if *tell {
		if err := printReport(os.Stdout, *state); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// A lane mostly waits: more of them fit on a machine than it has cores.
	if err := flag.Set("test.parallel", strconv.Itoa(max(*lanes, 1))); err != nil {
		panic(err)
	}
	clustertest.Main(house{m})
}

// house removes what the lanes left.
type house struct{ *testing.M }

func (h house) Run() int {
	code := h.M.Run()
	if s := theSite.site; s != nil {
		_ = os.RemoveAll(s.dir) // a temporary folder
	}
	return code
}

// site is the control plane that all lanes share, as its administrator sees it.
type site struct {
	*cluster.Cluster
	config   *rest.Config
	client   client.Client
	kube     *kubernetes.Clientset
	dynamic  *dynamic.DynamicClient
	metadata metadata.Interface
	dir      string
	binary   string // built with failpoints
	build    string // the first digits of its SHA-256

	mu   sync.Mutex
	seq  int
	mark string // in the names of what lies outside of namespaces, and of these
}

// theSite is made by the first test that needs it.
var theSite struct {
	sync.Once
	*site
	err error
}

func newSite(t *testing.T) *site {
	t.Helper()
	theSite.Do(func() { theSite.site, theSite.err = makeSite(t) })
	if theSite.err != nil {
		t.Fatal(theSite.err)
	}
	return theSite.site
}

func makeSite(t *testing.T) (*site, error) {
	s := &site{Cluster: clustertest.Shared(t), mark: rand.String(5)}
	var err error
	if s.dir, err = os.MkdirTemp("", "nexus-faults-"); err != nil {
		return nil, err
	}
	if s.binary, s.build, err = buildDaemon(s.dir); err != nil {
		return nil, err
	}
	if err := cluster.Kubectl(t.Context(), s.dir); err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	if s.config, err = s.Config(); err != nil {
		return nil, err
	}
	if s.client, err = client.New(s.config, client.Options{Scheme: scheme}); err != nil {
		return nil, err
	}
	if s.kube, err = kubernetes.NewForConfig(s.config); err != nil {
		return nil, err
	}
	if s.dynamic, err = dynamic.NewForConfig(s.config); err != nil {
		return nil, err
	}
	if s.metadata, err = metadata.NewForConfig(s.config); err != nil {
		return nil, err
	}
	out, err := exec.Command(s.binary, "install", "--without-daemon", "--kubeconfig", s.Kubeconfig).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("install: %w\n%s", err, out)
	}
	return s, nil
}

// buildDaemon builds the daemon with failpoints. Its digest depends on nothing but the code: results are kept by it.
func buildDaemon(dir string) (binary, digest string, err error) {
	binary = filepath.Join(dir, "reconciler")
	out, err := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-tags", "failpoints", "-o", binary, "../../cmd/reconciler").CombinedOutput()
	if err != nil {
		return "", "", fmt.Errorf("build the reconciler: %w\n%s", err, out)
	}
	f, err := os.Open(binary)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", "", err
	}
	return binary, hex.EncodeToString(h.Sum(nil))[:12], nil
}

// number is one that was not given before.
func (s *site) number() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	return s.seq
}
