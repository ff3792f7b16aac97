// What users do with @kubernetes/client-node, step by step; a JSON line tells how each went.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { PassThrough } from 'node:stream';
import * as k8s from '@kubernetes/client-node';

const config = new k8s.KubeConfig();
config.loadFromFile(process.env.KUBECONFIG);
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const namespace = 'node-client';
const DEADLINE_MS = 30_000;

async function until(what, check) {
    const end = performance.now() + DEADLINE_MS;
    for (;;) {
        const found = await check();
        if (found) return found;
        assert.ok(performance.now() < end, `${what} did not come`);
        await new Promise((done) => setTimeout(done, 50));
    }
}

function collected(stream) {
    const parts = [];
    stream.on('data', (part) => parts.push(part));
    return () => Buffer.concat(parts).toString();
}

async function refused(call, code, reason) {
    const error = await call.then(() => assert.fail('was not refused'), (error) => error);
    assert.equal(error.code, code);
    assert.equal(JSON.parse(error.body).reason, reason);
}

const configMap = (name, data = {}, labels = {}) => ({ metadata: { name, labels }, data });

const steps = {
    async version_and_discovery() {
        const version = await config.makeApiClient(k8s.VersionApi).getCode();
        assert.equal(version.major, '1');
        const groups = await config.makeApiClient(k8s.ApisApi).getAPIVersions();
        assert.ok(groups.groups.some((group) => group.name === 'apps'));
        assert.ok((await core.getAPIResources()).resources.some((one) => one.name === 'pods'));
        assert.equal((await new k8s.Health(config).livez({})), true);
        assert.equal((await new k8s.Health(config).readyz({})), true);
    },

    async objects_are_created_read_replaced_and_deleted() {
        const made = await core.createNamespacedConfigMap({ namespace, body: configMap('one', { a: '1' }) });
        assert.ok(made.metadata.uid);
        assert.ok(made.metadata.creationTimestamp instanceof Date);
        await refused(core.createNamespacedConfigMap({ namespace, body: configMap('one') }), 409, 'AlreadyExists');
        made.data.b = '2';
        const replaced = await core.replaceNamespacedConfigMap({ name: 'one', namespace, body: made });
        assert.deepEqual(replaced.data, { a: '1', b: '2' });
        await refused(core.replaceNamespacedConfigMap({ name: 'one', namespace, body: made }), 409, 'Conflict');
        const deleted = await core.deleteNamespacedConfigMap({ name: 'one', namespace });
        assert.equal(deleted.status, 'Success');
        await refused(core.readNamespacedConfigMap({ name: 'one', namespace }), 404, 'NotFound');
        await refused(core.createNamespacedConfigMap({ namespace, body: configMap('Not_A_Name') }), 422, 'Invalid');
    },

    async patches_of_each_kind() {
        await core.createNamespacedConfigMap({ namespace, body: configMap('patched', { a: '1' }) });
        const patch = async (body, strategy) =>
            (await core.patchNamespacedConfigMap(
                { name: 'patched', namespace, body, fieldManager: 'node' },
                k8s.setHeaderOptions('Content-Type', strategy),
            )).data;
        assert.deepEqual(await patch([{ op: 'add', path: '/data/b', value: '2' }], k8s.PatchStrategy.JsonPatch), {
            a: '1',
            b: '2',
        });
        assert.deepEqual(await patch({ data: { a: null } }, k8s.PatchStrategy.MergePatch), { b: '2' });
        assert.deepEqual(await patch({ data: { c: '3' } }, k8s.PatchStrategy.StrategicMergePatch), { b: '2', c: '3' });
        const applied = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'patched' }, data: { d: '4' } };
        assert.deepEqual(await patch(applied, k8s.PatchStrategy.ServerSideApply), { b: '2', c: '3', d: '4' });
    },

    async lists_in_pages_and_by_selectors() {
        for (let n = 0; n < 5; n++) {
            await core.createNamespacedConfigMap({ namespace, body: configMap(`page-${n}`, {}, { book: `${n % 2}` }) });
        }
        const names = [];
        let _continue;
        do {
            const page = await core.listNamespacedConfigMap({ namespace, limit: 2, labelSelector: 'book', _continue });
            assert.ok(page.items.length <= 2);
            names.push(...page.items.map((item) => item.metadata.name));
            _continue = page.metadata._continue;
        } while (_continue);
        assert.deepEqual(names, [0, 1, 2, 3, 4].map((n) => `page-${n}`));
        const odd = await core.listNamespacedConfigMap({ namespace, labelSelector: 'book=1' });
        assert.equal(odd.items.length, 2);
        const one = await core.listNamespacedConfigMap({ namespace, fieldSelector: 'metadata.name=page-3' });
        assert.equal(one.items.length, 1);
        await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 'book' });
        await until('an empty collection', async () =>
            !(await core.listNamespacedConfigMap({ namespace, labelSelector: 'book' })).items.length);
    },

    async a_watch_tells_every_change() {
        const seen = [];
        const watch = new k8s.Watch(config);
        const controller = await watch.watch(
            `/api/v1/namespaces/${namespace}/configmaps`,
            { labelSelector: 'watched' },
            (phase, obj) => seen.push(`${phase} ${obj.metadata.name} ${obj.data?.n ?? ''}`),
            () => {},
        );
        await core.createNamespacedConfigMap({ namespace, body: configMap('seen', { n: '1' }, { watched: 'yes' }) });
        await core.patchNamespacedConfigMap(
            { name: 'seen', namespace, body: { data: { n: '2' } } },
            k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch),
        );
        await core.deleteNamespacedConfigMap({ name: 'seen', namespace });
        await until('three events', () => seen.length === 3);
        controller.abort();
        assert.deepEqual(seen, ['ADDED seen 1', 'MODIFIED seen 2', 'DELETED seen 2']);
    },

    async an_informer_keeps_a_cache_and_goes_on_after_a_pause() {
        const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: 'informed' });
        const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, list, 'informed');
        const seen = [];
        for (const verb of ['add', 'update', 'delete']) {
            informer.on(verb, (obj) => seen.push(`${verb} ${obj.metadata.name}`));
        }
        await informer.start();
        await core.createNamespacedConfigMap({ namespace, body: configMap('first', {}, { informed: 'yes' }) });
        await until('the first object', () => informer.get('first', namespace));
        await informer.stop();
        await core.createNamespacedConfigMap({ namespace, body: configMap('second', {}, { informed: 'yes' }) });
        await core.deleteNamespacedConfigMap({ name: 'first', namespace });
        await informer.start();
        await until('what was missed', () => informer.get('second', namespace) && !informer.get('first', namespace));
        await informer.stop();
        assert.ok(seen.includes('add first') && seen.includes('add second') && seen.includes('delete first'), `${seen}`);
    },

    async yaml_of_any_kind_through_the_generic_client() {
        const text = fs.readFileSync(path.join(import.meta.dirname, 'objects.yaml'), 'utf8');
        const api = k8s.KubernetesObjectApi.makeApiClient(config);
        const objects = k8s.loadAllYaml(text);
        for (const obj of objects) {
            await until(`a ${obj.kind}`, () =>
                api.create(obj).catch((error) => (error.code === 404 ? undefined : Promise.reject(error)))
                    .catch((error) => (/Unrecognized API version/.test(error.message) ? undefined : Promise.reject(error))));
        }
        const boat = objects.find((obj) => obj.kind === 'Boat');
        assert.equal((await api.read(boat)).spec.sails, 3);
        const patched = await api.patch(
            { ...boat, spec: { sails: 4 } }, undefined, undefined, 'node', true, k8s.PatchStrategy.ServerSideApply,
        );
        assert.equal(patched.spec.sails, 4);
        const listed = await api.list('boats.example.org/v1', 'Boat', namespace);
        assert.equal(listed.items.length, 1);
        const custom = config.makeApiClient(k8s.CustomObjectsApi);
        const scaled = await custom.getNamespacedCustomObject({
            group: 'boats.example.org', version: 'v1', namespace, plural: 'boats', name: boat.metadata.name,
        });
        assert.equal(scaled.spec.sails, 4);
        for (const obj of objects.reverse()) await api.delete(obj);
        await until('the end of the boat', () => api.read(boat).then(() => false, () => true));
    },

    async a_deployment_is_rolled_out_and_scaled() {
        const labels = { app: 'web' };
        const container = { name: 'web', image: 'localhost/web:v1', command: ['sh', '-c', 'while true; do sleep 1; done'] };
        const body = {
            metadata: { name: 'web' },
            spec: {
                replicas: 1,
                selector: { matchLabels: labels },
                template: { metadata: { labels }, spec: { terminationGracePeriodSeconds: 0, containers: [container] } },
            },
        };
        await apps.createNamespacedDeployment({ namespace, body });
        const ready = (count) => async () =>
            (await apps.readNamespacedDeployment({ name: 'web', namespace })).status.readyReplicas === count;
        await until('one ready pod', ready(1));
        const scale = await apps.readNamespacedDeploymentScale({ name: 'web', namespace });
        scale.spec.replicas = 2;
        await apps.replaceNamespacedDeploymentScale({ name: 'web', namespace, body: scale });
        await until('two ready pods', ready(2));
        await apps.deleteNamespacedDeployment({ name: 'web', namespace });
        await until('the end of its pods', async () =>
            !(await core.listNamespacedPod({ namespace, labelSelector: 'app=web' })).items.length);
    },

    async an_informer_lists_anew_when_the_changes_it_missed_are_gone() {
        const labelled = { namespace, labelSelector: 'gone' };
        let before = await core.listNamespacedConfigMap(labelled);
        await core.createNamespacedConfigMap({ namespace, body: configMap('stays', {}, { gone: 'no' }) });
        // the server remembers changes of 64 MiB
        const filler = { name: 'filler', namespace, body: configMap('filler', { words: 'x'.repeat(1_000_000) }) };
        await core.createNamespacedConfigMap(filler);
        for (let turn = 0; turn < 70; turn += 1) {
            filler.body.data.turn = `${turn}`;
            await core.replaceNamespacedConfigMap(filler);
        }
        await core.deleteNamespacedConfigMap({ name: 'filler', namespace });
        const events = { add: 0, error: 0 };
        let lists = 0;
        const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, () => {
            lists += 1;
            const first = before;
            before = null;
            return first ?? core.listNamespacedConfigMap(labelled);
        }, 'gone');
        for (const verb of Object.keys(events)) informer.on(verb, () => (events[verb] += 1));
        try {
            await informer.start();
            await until('what was missed', () => informer.get('stays', namespace));
            assert.deepEqual([lists, events], [2, { add: 1, error: 0 }]);
        } finally {
            await informer.stop();
        }
    },

    async an_informer_goes_on_after_its_connection_was_cut() {
        const upstream = new URL(config.getCurrentCluster().server);
        const sockets = new Set();
        const wire = net.createServer((client) => {
            const server = net.connect(upstream.port, upstream.hostname);
            for (const [from, to] of [[client, server], [server, client]]) {
                sockets.add(from);
                from.on('error', () => {}).on('close', () => to.destroy()).pipe(to);
            }
        });
        await new Promise((done) => wire.listen(0, '127.0.0.1', done));
        const through = new k8s.KubeConfig();
        const server = `https://127.0.0.1:${wire.address().port}`;
        through.loadFromClusterAndUser({ ...config.getCurrentCluster(), server }, config.getCurrentUser());
        const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: 'cut' });
        const informer = k8s.makeInformer(through, `/api/v1/namespaces/${namespace}/configmaps`, list, 'cut');
        let cuts = 0;
        informer.on('error', () => {
            cuts += 1;
            setTimeout(() => informer.start(), 50);
        });
        try {
            await informer.start();
            await core.createNamespacedConfigMap({ namespace, body: configMap('before', {}, { cut: 'yes' }) });
            await until('what was made before', () => informer.get('before', namespace));
            for (const socket of sockets) socket.destroy();
            await core.createNamespacedConfigMap({ namespace, body: configMap('after', {}, { cut: 'yes' }) });
            await until('what was made after', () => informer.get('after', namespace));
            assert.ok(informer.get('before', namespace) && cuts > 0);
        } finally {
            await informer.stop();
            for (const socket of sockets) socket.destroy();
            wire.close();
        }
    },

    async a_pod_reads_its_configuration_from_its_files_and_environment() {
        const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'node-pod-'));
        const cluster = config.getCurrentCluster();
        const secrets = path.join(folder, 'var/run/secrets/kubernetes.io/serviceaccount');
        const made = await core.createNamespacedServiceAccountToken({ name: 'default', namespace, body: { spec: {} } });
        const ca = cluster.caData ? Buffer.from(cluster.caData, 'base64') : fs.readFileSync(cluster.caFile);
        const { hostname, port } = new URL(cluster.server);
        try {
            fs.mkdirSync(secrets, { recursive: true });
            for (const [name, text] of Object.entries({ token: made.status.token, 'ca.crt': ca, namespace })) {
                fs.writeFileSync(path.join(secrets, name), text);
            }
            Object.assign(process.env, { KUBERNETES_SERVICE_HOST: hostname, KUBERNETES_SERVICE_PORT: port });
            const inner = new k8s.KubeConfig();
            inner.loadFromCluster(folder);
            const review = await inner.makeApiClient(k8s.AuthenticationV1Api).createSelfSubjectReview({ body: {} });
            assert.equal(review.status.userInfo.username, `system:serviceaccount:${namespace}:default`);
            await refused(inner.makeApiClient(k8s.CoreV1Api).listNamespacedPod({ namespace }), 403, 'Forbidden');
        } finally {
            delete process.env.KUBERNETES_SERVICE_HOST;
            delete process.env.KUBERNETES_SERVICE_PORT;
            fs.rmSync(folder, { recursive: true });
        }
    },

    async logs_are_cut_and_those_of_the_container_before_are_kept() {
        const script = 'if [ -e /work/again ]; then seq 5; exec sleep 1000; fi; touch /work/again; echo first; exit 1';
        const volumeMounts = [{ name: 'work', mountPath: '/work' }];
        const container = { name: 'main', image: 'localhost/web:v1', command: ['sh', '-c', script], volumeMounts };
        const volumes = [{ name: 'work', emptyDir: {} }];
        const spec = { terminationGracePeriodSeconds: 0, containers: [container], volumes };
        await core.createNamespacedPod({ namespace, body: { metadata: { name: 'twice' }, spec } });
        await until('a second container', async () => {
            const state = (await core.readNamespacedPod({ name: 'twice', namespace })).status.containerStatuses?.[0];
            return state?.restartCount === 1 && state.state.running;
        });
        const log = async (options) => {
            const lines = new PassThrough();
            const text = collected(lines);
            const ended = new Promise((done) => lines.on('end', done));
            await new k8s.Log(config).log(namespace, 'twice', 'main', lines, options);
            await ended;
            return text();
        };
        await until('its lines', async () => (await log({})) === '1\n2\n3\n4\n5\n');
        assert.equal(await log({ tailLines: 2 }), '4\n5\n');
        assert.equal(await log({ limitBytes: 3 }), '1\n2');
        assert.match(await log({ tailLines: 1, timestamps: true }), /^\d{4}-\d\d-\d\dT[\d:.]+Z 5\n$/);
        assert.equal(await log({ previous: true }), 'first\n');
        await core.deleteNamespacedPod({ name: 'twice', namespace, gracePeriodSeconds: 0 });
    },

    async a_pod_is_looked_into() {
        const script = 'echo ready; echo hello > /tmp/page; httpd -p 8080 -h /tmp; cat';
        const container = { name: 'main', image: 'localhost/web:v1', command: ['sh', '-c', script], stdin: true };
        const body = { metadata: { name: 'pod' }, spec: { terminationGracePeriodSeconds: 0, containers: [container] } };
        await core.createNamespacedPod({ namespace, body });
        await until('a running pod', async () =>
            (await core.readNamespacedPod({ name: 'pod', namespace })).status.phase === 'Running');

        const lines = new PassThrough();
        const logged = collected(lines);
        const following = await new k8s.Log(config).log(namespace, 'pod', 'main', lines, { follow: true });
        await until('the first line', () => logged() === 'ready\n');

        const [stdout, stderr] = [new PassThrough(), new PassThrough()];
        const [out, err] = [collected(stdout), collected(stderr)];
        const command = ['sh', '-c', 'read word; echo out $word; echo err >&2; exit 3'];
        const stdin = new PassThrough();
        const status = new Promise((done) => {
            new k8s.Exec(config).exec(namespace, 'pod', 'main', command, stdout, stderr, stdin, false, done);
        });
        stdin.write('given\n');
        const ended = await status;
        assert.equal(ended.status, 'Failure');
        assert.equal(ended.details.causes.find((cause) => cause.reason === 'ExitCode').message, '3');
        assert.deepEqual([out(), err()], ['out given\n', 'err\n']);

        const attached = new PassThrough();
        const typed = new PassThrough();
        const echoed = collected(attached);
        const socket = await new k8s.Attach(config).attach(namespace, 'pod', 'main', attached, null, typed, false);
        typed.write('to cat\n');
        await until('what cat says', () => echoed().includes('to cat'));
        await until('the same in the log', () => logged().includes('to cat'));
        socket.close();
        following.abort();

        const terminal = Object.assign(new PassThrough(), { rows: 24, columns: 80 });
        const shown = collected(terminal);
        const sizes = ['sh', '-c', 'while sleep 0.1; do stty size; done'];
        const typing = await new k8s.Exec(config).exec(namespace, 'pod', 'main', sizes, terminal, null, new PassThrough(), true);
        try {
            await until('the size of the terminal', () => shown().includes('24 80'));
            Object.assign(terminal, { rows: 40, columns: 100 }).emit('resize');
            await until('its new size', () => shown().includes('40 100'));
        } finally {
            typing.close();
        }

        const forward = new k8s.PortForward(config);
        const server = net.createServer((client) => forward.portForward(namespace, 'pod', [8080], client, null, client));
        try {
            await new Promise((done) => server.listen(0, '127.0.0.1', done));
            const page = await fetch(`http://127.0.0.1:${server.address().port}/page`);
            assert.equal(await page.text(), 'hello\n');
        } finally {
            server.close();
        }

        const said = async (...words) => {
            const written = new PassThrough();
            const text = collected(written);
            await new Promise((done) => {
                new k8s.Exec(config).exec(namespace, 'pod', 'main', words, written, null, null, false, done);
            });
            return text();
        };
        const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'node-cp-'));
        try {
            fs.writeFileSync(path.join(folder, 'note'), 'copied\n');
            // its promise does not wait for the files, and its way back unpacks what it has compressed as if it had not
            await new k8s.Cp(config).cpToPod(namespace, 'pod', 'main', folder, '/tmp');
            await until('the copy in the pod', () => said('cat', '/tmp/note').then((text) => text === 'copied\n'));
        } finally {
            fs.rmSync(folder, { recursive: true });
        }
        await core.deleteNamespacedPod({ name: 'pod', namespace, gracePeriodSeconds: 0 });
    },

    async nodes_are_summed_up() {
        const nodes = await k8s.topNodes(core);
        assert.equal(nodes.length, 1);
        assert.ok(nodes[0].CPU.Capacity > 0);
    },
};

const wanted = process.argv.slice(2);
await core.createNamespace({ body: { metadata: { name: namespace } } });
await until('a service account', () =>
    core.readNamespacedServiceAccount({ name: 'default', namespace }).catch(() => undefined));
for (const [name, step] of Object.entries(steps)) {
    if (wanted.length && !wanted.includes(name)) continue;
    const error = await step().then(() => '', (error) => error.stack ?? String(error));
    console.log(JSON.stringify({ name, error }));
}
await core.deleteNamespace({ name: namespace });
process.exit(0);
