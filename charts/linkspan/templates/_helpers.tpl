{{/* Full name of an image of ours; takes a list of the root context and the part's name. */}}
{{- define "linkspan.image" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.registry }}{{ trimSuffix "/" . }}/{{ end -}}
linkspan/{{ index . 1 }}:{{ default $root.Chart.AppVersion $root.Values.imageVersion }}
{{- end -}}

{{/* Deployment of one part; takes a map: root, name, component, replicas, graceSeconds, minReadySeconds, args,
     gatewayPort, resources. */}}
{{- define "linkspan.deployment" -}}
{{- $root := .root -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    app.kubernetes.io/component: {{ .component }}
    app.kubernetes.io/part-of: linkspan
spec:
  replicas: {{ .replicas }}
  minReadySeconds: {{ .minReadySeconds }}
  selector:
    matchLabels:
      app.kubernetes.io/component: {{ .component }}
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxUnavailable: 0
      maxSurge: 1
  template:
    metadata:
      labels:
        app.kubernetes.io/component: {{ .component }}
        app.kubernetes.io/part-of: linkspan
    spec:
      serviceAccountName: {{ .name }}
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ .graceSeconds }}
      nodeSelector:
        kubernetes.io/os: linux
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        seccompProfile:
          type: RuntimeDefault
      {{- if $root.Values.ha }}
      affinity:
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
          - weight: 100
            podAffinityTerm:
              topologyKey: kubernetes.io/hostname
              labelSelector:
                matchLabels:
                  app.kubernetes.io/component: {{ .component }}
          - weight: 50
            podAffinityTerm:
              topologyKey: topology.kubernetes.io/zone
              labelSelector:
                matchLabels:
                  app.kubernetes.io/component: {{ .component }}
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: ScheduleAnyway
        labelSelector:
          matchLabels:
            app.kubernetes.io/component: {{ .component }}
        matchLabelKeys:
        - pod-template-hash
      {{- end }}
      containers:
      - name: {{ .component }}
        image: {{ include "linkspan.image" (list $root .component) | quote }}
        imagePullPolicy: {{ $root.Values.imagePullPolicy }}
        args:
        - --log-level={{ $root.Values.logLevel }}
        - --log-format={{ $root.Values.logFormat }}
        {{- range .args }}
        - {{ . }}
        {{- end }}
        {{- with $root.Values.exportNamespaces }}
        - {{ printf "--export-namespaces=%s" . | quote }}
        {{- end }}
        {{- if and (not .gatewayPort) $root.Values.createNamespaces }}
        - {{ printf "--create-namespaces=%s" $root.Values.createNamespaces | quote }}
        {{- end }}
        env:
        - name: POD_NAMESPACE
          valueFrom:
            fieldRef:
              fieldPath: metadata.namespace
        - name: POD_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        ports:
        {{- if .gatewayPort }}
        - name: mc-gateway
          containerPort: 4143
          protocol: TCP
        {{- end }}
        - name: admin
          containerPort: 9999
          protocol: TCP
        readinessProbe:
          httpGet:
            path: /ready
            port: admin
          periodSeconds: 2
          failureThreshold: 3
        livenessProbe:
          httpGet:
            path: /live
            port: admin
          periodSeconds: 10
          failureThreshold: 3
        resources:
          {{- toYaml .resources | nindent 10 }}
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities:
            drop:
            - ALL
{{- end -}}

{{/* Disruption budget of one part; takes a map: root, name, component. */}}
{{- define "linkspan.budget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    app.kubernetes.io/component: {{ .component }}
    app.kubernetes.io/part-of: linkspan
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
      app.kubernetes.io/component: {{ .component }}
{{- end -}}
