package reconcile

import (
	"strings"
	"testing"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/journal"
)

func TestTheCommandOfAHaltNamesTheJournalOfTheTargetCluster(t *testing.T) {
	r := &Reconciler{System: "here", Environment: &v1alpha1.Environment{}, Journal: &journal.Journal{Namespace: "there", Environment: "uid"}}
	r.Environment.Spec.Cluster = &v1alpha1.ClusterReference{}
	do := r.remedy(&journal.LostHeadError{})
	for _, want := range []string{"kubectl --namespace there delete secrets --selector nexus.dev/journal=uid` in the cluster that spec.cluster names", "tip of the branch is good"} {
		if !strings.Contains(do, want) {
			t.Errorf("%q is not in %q", want, do)
		}
	}
}
