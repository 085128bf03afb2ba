#!/usr/bin/python3
# service_manager.py UNIT INSTANCE ROOM COMMAND...: as systemd runs COMMAND, the main process of such a
# unit (sd_notify(3), sd_listen_fds(3), systemd.service(5)). It keeps ROOM descriptors, forgets those
# that hang up, kills what is left when the main process has died, runs the unit's ExecStopPost=,
# and starts it again as its Restart= says. What it does goes to stdout; SIGTERM stops all for good.
import array, fcntl, os, re, select, signal, socket, subprocess, sys, time

unit, instance, room, command = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
text = open(unit).read()
stopping = False
path = os.environ["SCRATCH"] + "/notify." + instance


def setting(name):
    found = re.findall("^%s=(.*)$" % name, text, re.M)
    return found[-1] if found else ""


def say(*words):
    print(*words, flush=True)


sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.bind(path)
store = []  # (name, fd)
poller = select.poll()
poller.register(sock, select.POLLIN)


def forget(entry):
    store.remove(entry)
    try:
        poller.unregister(entry[1])
    except KeyError:
        pass
    os.close(entry[1])


def keep(name, fds):
    for fd in fds:
        if len(store) >= room:
            os.close(fd)
            continue
        store.append((name, fd))
        poller.register(fd, 0)  # a hang-up


def obey():
    data, ancillary, _, _ = sock.recvmsg(4096, socket.CMSG_SPACE(4 * 16))
    fds = array.array("i")
    for level, kind, content in ancillary:
        if kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    words = dict(line.split("=", 1) for line in data.decode().splitlines())
    if words.get("FDSTORE") == "1":
        keep(words["FDNAME"], fds)
        return
    for fd in fds:
        os.close(fd)
    if words.get("FDSTOREREMOVE") == "1":
        for entry in [e for e in store if e[0] == words["FDNAME"]]:
            forget(entry)
    if "READY" in words:
        say("ready, kept:", len(store))


def start():
    pid = os.fork()
    if pid:
        return pid
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    env = dict(os.environ, NOTIFY_SOCKET=path)
    fds = [fcntl.fcntl(fd, fcntl.F_DUPFD, 3 + len(store) + 100) for _, fd in store]
    for i, fd in enumerate(fds):
        os.dup2(fd, 3 + i)
    os.closerange(3 + len(fds), 4096)
    if fds:
        env.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)),
                   LISTEN_FDNAMES=":".join(name for name, _ in store))
    os.execvpe(command[0], command, env)


def told_to_stop(*_):
    global stopping
    stopping = True
    os.kill(main, signal.SIGTERM)


def kill_rest():
    while True:
        try:
            os.killpg(main, signal.SIGKILL)
        except ProcessLookupError:
            return
        time.sleep(0.02)


# systemd.exec(5), "Environment Variables Set or Propagated by the Service Manager"
def stop_post(result, code, status):
    line = setting("ExecStopPost").lstrip("-").replace("$$", "$").replace("%i", instance)
    line = re.sub(r"\S*/ublkzc ", os.environ["UBLKZC"] + " ", line)
    subprocess.run(["sh", "-c", line],
                   env=dict(os.environ, SERVICE_RESULT=result, EXIT_CODE=code, EXIT_STATUS=status))


def wait_for_end():
    gone = os.pidfd_open(main)
    poller.register(gone, select.POLLIN)
    while True:
        events = poller.poll()
        for fd, event in events:
            if fd == sock.fileno():
                obey()
            elif fd != gone:
                for entry in [e for e in store if e[1] == fd]:
                    forget(entry)
        if len(events) == 1 and events[0][0] == gone:  # what it had said comes first
            break
    poller.unregister(gone)
    os.close(gone)
    return os.waitpid(main, 0)[1]


signal.signal(signal.SIGTERM, told_to_stop)
while True:
    main = start()
    ended = wait_for_end()
    kill_rest()
    if os.WIFSIGNALED(ended):
        result, code, status = "signal", "killed", signal.Signals(os.WTERMSIG(ended)).name[3:]
    else:
        status = str(os.WEXITSTATUS(ended))
        result, code = "success" if status == "0" else "exit-code", "exited"
    stop_post(result, code, status)
    again = (result == "signal" and setting("Restart") == "on-abnormal") or \
        (result == "exit-code" and status in setting("RestartForceExitStatus").split())
    say("ended:", result, status)
    if stopping or not again:
        sys.exit(0 if result == "success" else 1)
    time.sleep(0.1)
