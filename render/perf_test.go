package render

import (
	"fmt"
	"strings"
	"testing"
)

// site is an overlay of n objects in the proportions of a real one, over ten namespaces.
func site(n int, perFile int, lines string) files {
	f := files{}
	var list strings.Builder
	var docs []string
	flush := func() {
		if len(docs) > 0 {
			name := fmt.Sprintf("f%d.yaml", len(f))
			f["app/"+name] = strings.Join(docs, "---\n")
			fmt.Fprintf(&list, "- %s\n", name)
			docs = nil
		}
	}
	for i := range n {
		ns := fmt.Sprintf("ns-%d", i%10)
		meta := fmt.Sprintf("metadata:\n  name: o%d\n  namespace: %s\n  labels:\n    app: o%d\n", i, ns, i)
		switch i % 20 {
		case 0, 1, 2, 3, 4, 5, 6, 7:
			docs = append(docs, "apiVersion: v1\nkind: ConfigMap\n"+meta+"data:\n  a: value\n  b: |\n    some\n    lines\n")
		case 8, 9, 10:
			docs = append(docs, "apiVersion: v1\nkind: Secret\n"+meta+"data:\n  a: dmFsdWU=\n")
		case 11, 12, 13:
			docs = append(docs, "apiVersion: v1\nkind: Service\n"+meta+"spec:\n  selector:\n    app: x\n  ports:\n  - port: 80\n    targetPort: http\n")
		case 14, 15, 16:
			docs = append(docs, "apiVersion: apps/v1\nkind: Deployment\n"+meta+"spec:\n  replicas: 0\n  selector:\n    matchLabels:\n      app: x\n  template:\n    metadata:\n      labels:\n        app: x\n    spec:\n      serviceAccountName: o17\n      containers:\n      - name: c\n        image: example.com/i:1\n        envFrom:\n        - configMapRef:\n            name: o0\n        - secretRef:\n            name: o8\n")
		case 17:
			docs = append(docs, "apiVersion: v1\nkind: ServiceAccount\n"+meta)
		case 18:
			docs = append(docs, "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\n"+meta+"rules:\n- apiGroups: [\"\"]\n  resources: [pods]\n  verbs: [get]\n")
		case 19:
			docs = append(docs, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"+meta+"spec:\n  podSelector: {}\n")
		}
		if len(docs) == perFile {
			flush()
		}
	}
	flush()
	f["app/kustomization.yaml"] = lines + "resources:\n" + list.String()
	return f
}

func BenchmarkRender(b *testing.B) {
	for _, n := range []int{100, 1000, 2000, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			tree := site(n, 10, "").tree(b)
			for b.Loop() {
				got, err := (&Renderer{Command: childCommand}).Render(b.Context(), Request{Tree: tree, Path: "app"})
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(got.PeakRSS>>20), "MiB-peak")
				b.ReportMetric(float64(got.Set.Len()), "objects")
			}
		})
	}
}
