package sim

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// store is what a namespace has: kind/name: keys.
type store map[string]map[string]bool

func (s store) look(kind, name string) (map[string]bool, error) { return s[kind+"/"+name], nil }

func local(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }

func TestLacksAreWordedAsByAKubelet(t *testing.T) {
	yes := true
	has := store{"ConfigMap/settings": {"color": true}, "Secret/login": {"user": true}}
	from := func(s *corev1.EnvVarSource) *corev1.Pod {
		p := pod()
		p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "PLAIN", Value: "x"}, {Name: "X", ValueFrom: s}}
		return p
	}
	all := func(s corev1.EnvFromSource) *corev1.Pod {
		p := pod("init a:1")
		p.Spec.InitContainers[0].EnvFrom = []corev1.EnvFromSource{s}
		return p
	}
	mount := func(s corev1.VolumeSource) *corev1.Pod {
		p := pod()
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: s}}
		return p
	}
	key := func(name, key string) *corev1.ConfigMapKeySelector {
		return &corev1.ConfigMapKeySelector{LocalObjectReference: local(name), Key: key}
	}
	for name, tt := range map[string]struct {
		pod  *corev1.Pod
		want []Lack
	}{
		"a pod without references lacks nothing": {pod(), nil},
		"a key that is there is no lack":         {from(&corev1.EnvVarSource{ConfigMapKeyRef: key("settings", "color")}), nil},
		"a missing ConfigMap of a variable":      {from(&corev1.EnvVarSource{ConfigMapKeyRef: key("gone", "color")}), []Lack{{Container: "c0", Message: `configmap "gone" not found`}}},
		"a missing key of a ConfigMap":           {from(&corev1.EnvVarSource{ConfigMapKeyRef: key("settings", "size")}), []Lack{{Container: "c0", Message: `couldn't find key size in ConfigMap shop/settings`}}},
		"a missing Secret of a variable":         {from(&corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: local("gone"), Key: "user"}}), []Lack{{Container: "c0", Message: `secret "gone" not found`}}},
		"an optional Secret may be missing":      {from(&corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: local("gone"), Key: "user", Optional: &yes}}), nil},
		"a field of the pod is always there":     {from(&corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}), nil},
		"a missing ConfigMap of all variables":   {all(corev1.EnvFromSource{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local("gone")}}), []Lack{{Container: "i0", Message: `configmap "gone" not found`}}},
		"a missing Secret of all variables":      {all(corev1.EnvFromSource{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: local("gone")}}), []Lack{{Container: "i0", Message: `secret "gone" not found`}}},
		"a missing ConfigMap of a volume":        {mount(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: local("gone")}}), []Lack{{Volume: "v", Message: `MountVolume.SetUp failed for volume "v" : configmap "gone" not found`}}},
		"a missing key of a volume":              {mount(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: local("settings"), Items: []corev1.KeyToPath{{Key: "size"}, {Key: "color"}}}}), []Lack{{Volume: "v", Message: `MountVolume.SetUp failed for volume "v" : references non-existent config key: size`}}},
		"a missing Secret of a volume":           {mount(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "gone"}}), []Lack{{Volume: "v", Message: `MountVolume.SetUp failed for volume "v" : secret "gone" not found`}}},
		"an optional volume may be missing":      {mount(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "gone", Optional: &yes}}), nil},
		"a missing Secret of a projected volume": {mount(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: local("settings")}}, {Secret: &corev1.SecretProjection{LocalObjectReference: local("gone")}}}}}), []Lack{{Volume: "v", Message: `MountVolume.SetUp failed for volume "v" : secret "gone" not found`}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Lacks(tt.pod, has.look)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	want := errors.New("API server away")
	_, err := Lacks(all(corev1.EnvFromSource{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: local("login")}}),
		func(string, string) (map[string]bool, error) { return nil, want })
	if !errors.Is(err, want) {
		t.Errorf("a failed look-up is taken for an answer: %v", err)
	}
}

func TestALackHoldsAPodUntilItIsThere(t *testing.T) {
	for name, tt := range map[string]struct {
		lack         Lack
		held, healed string
		started      string
	}{
		"an environment holds its container alone": {Lack{Container: "c0", Message: "m"},
			"Pending: c0 CreateContainerConfigError, c1 ready", "Running: c0 ready, c1 ready", "True"},
		"a volume holds the pod": {Lack{Volume: "v", Message: "m"},
			"Pending: c0 ContainerCreating, c1 ContainerCreating", "Running: c0 ready, c1 ready", "False"},
	} {
		t.Run(name, func(t *testing.T) {
			p, life, now := pod("web:1", "side:1"), Life{}, noon
			p.Status, _ = world.Status(p, life, []Lack{tt.lack}, now)
			p.Status, _ = world.Status(p, life, []Lack{tt.lack}, now.Add(time.Minute))
			if got := tell(&p.Status); got != tt.held {
				t.Errorf("held: %s, want %s", got, tt.held)
			}
			if got := conditions(&p.Status)[corev1.PodReadyToStartContainers]; got != tt.started {
				t.Errorf("ready to start containers: %s, want %s", got, tt.started)
			}
			now = now.Add(2 * time.Minute)
			_, again := world.Status(p, life, nil, now)
			p.Status, _ = world.Status(p, life, nil, now.Add(again))
			if got := tell(&p.Status); got != tt.healed {
				t.Errorf("healed: %s, want %s", got, tt.healed)
			}
			p.Status, _ = world.Status(p, life, []Lack{tt.lack}, now.Add(time.Hour))
			if got := tell(&p.Status); got != tt.healed {
				t.Errorf("what is taken away later stops a container: %s", got)
			}
		})
	}
}

func TestOnlyNewsAreEvents(t *testing.T) {
	for name, tt := range map[string]struct {
		pod   *corev1.Pod
		lacks []Lack
		want  []Event
	}{
		"a pod that gets ready is no news": {pod(), nil, nil},
		"a pull that fails": {pod("web:image-pull"), nil, []Event{
			{"Warning", "Failed", `Failed to pull image "web:image-pull": failed to pull and unpack image "web:image-pull": not found (simulated)`},
			{"Normal", "BackOff", `Back-off pulling image "web:image-pull"`}}},
		"each turn of a crash loop": {pod("web:crashloop"), nil, []Event{
			{"Warning", "BackOff", "Back-off restarting failed container c0 in pod web_shop(u)"},
			{"Warning", "BackOff", "Back-off restarting failed container c0 in pod web_shop(u)"}}},
		"a missing ConfigMap": {pod(), []Lack{{Container: "c0", Message: `configmap "gone" not found`}}, []Event{
			{"Warning", "Failed", `Error: configmap "gone" not found`}}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []Event
			life := Life{}
			for at := time.Duration(0); at <= 2*time.Second; at += 50 * time.Millisecond {
				st, _ := world.Status(tt.pod, life, tt.lacks, noon.Add(at))
				got = append(got, Events(tt.pod, &tt.pod.Status, &st, tt.lacks)...)
				tt.pod.Status = st
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	lack := Lack{Volume: "v", Message: "m"}
	st, _ := world.Status(pod(), Life{}, []Lack{lack}, noon)
	if diff := cmp.Diff([]Event{{"Warning", "FailedMount", "m"}}, Events(pod(), &st, &st, []Lack{lack})); diff != "" {
		t.Errorf("a volume that cannot be mounted, -want +got:\n%s", diff)
	}
}
