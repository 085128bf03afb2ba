/* SPDX-License-Identifier: MIT */
/*
 * queue.c - see queue.h.
 *
 *   submit --> a connection --> done --> completed
 *      |        ^     |          |
 *      v        |     +--(lost)--+
 *    waiting ---+                |
 *      ^-------------------------+
 *
 * What a lost connection had is asked again on another, or waits for one.  To read or write the
 * same twice does no harm once nothing of the first time can come later, which connector.c sees to
 * before there is another.
 *
 * All connections of a queue are equal: where a server allows several, each shows what was written
 * by any, and a flush is for all of them.
 */
#include "queue.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "link.h"

#define PROBES 64U /* pages looked at by one call */

struct nbd_queue {
	struct ublkzc_queue *io;
	struct disk *disk;
	struct op *ops;		/* by tag */
	struct link *links;	/* options.nr_connections of them */
	struct op_list done;	/* with all their commands, and not looked at yet */
	struct op_list waiting; /* for a connection */
	bool settling;
	bool ticking;  /* the timer runs */
	time_t lost;   /* seconds; since when requests wait, or 0 */
	bool given_up; /* they have waited too long: nothing waits until there is a connection */
	int wake_fd;   /* the slots': the connector has made one */
	int timer_fd;  /* each second */
};

static time_t now_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

/* ---- begin ---- */

static void tick(struct nbd_queue *q, bool on)
{
	struct itimerspec each = { 0 };

	if (on == q->ticking)
		return;
	each.it_value.tv_sec = each.it_interval.tv_sec = on;
	timerfd_settime(q->timer_fd, 0, &each, NULL);
	q->ticking = on;
	if (on)
		ublkzc_poll(q->io, q->timer_fd, POLLIN);
}

/* The connection with the least to do; one that the request is beyond has not heard of a resize. */
static struct link *choose(struct nbd_queue *q, const struct ublkzc_request *rq)
{
	struct link *best = NULL;

	for (unsigned int i = 0; i < q->disk->options.nr_connections; i++) {
		struct link *l = &q->links[i];

		if (!l->handle || l->retiring)
			continue;
		if (rq->offset + rq->len > l->size) {
			l->retiring = true;
			if (!l->in_flight)
				link_retire(l);
		} else if (!best || l->in_flight < best->in_flight) {
			best = l;
		}
	}
	return best;
}

static void begin(struct nbd_queue *q, struct op *op)
{
	struct link *l = choose(q, op->rq);

	if (l) {
		link_send(l, op);
		tick(q, q->ticking || q->disk->options.timeout);
		return;
	}
	if (q->given_up) {
		ublkzc_complete(op->rq, -EIO);
		return;
	}
	op_append(&q->waiting, op);
	if (!q->lost)
		q->lost = now_seconds();
	tick(q, true);
}

/* ---- end ---- */

/* Has each page of the data's memory something in it?  Clients can take their own away. */
static bool memory_is_there(const struct ublkzc_request *rq)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

	for (unsigned int i = 0; i < rq->nr_iov; i++) {
		uintptr_t at = (uintptr_t)rq->iov[i].iov_base, end = at + rq->iov[i].iov_len;

		while (at < end) {
			char bytes[PROBES];
			struct iovec there[PROBES], here = { bytes, 0 };

			for (; here.iov_len < PROBES && at < end; at = (at | (page - 1)) + 1)
				there[here.iov_len++] = (struct iovec){ (void *)at, 1 };
			if (process_vm_readv(getpid(), &here, 1, there, here.iov_len, 0) !=
			    (ssize_t)here.iov_len)
				return false;
		}
	}
	return true;
}

/*
 * The connection was lost with it: or because of it, when a system call met memory that is gone.
 * ESHUTDOWN is a server's word for being about to end.
 */
static bool again(struct nbd_queue *q, struct op *op)
{
	if (op->error != -ENOTCONN && op->error != -ESHUTDOWN)
		return false;
	if (op->error == -ESHUTDOWN)
		op->link->retiring = op->link->server_ends = true;
	if (!memory_is_there(op->rq)) {
		op->error = -EFAULT;
		return false;
	}
	begin(q, op);
	return true;
}

static bool is_write(const struct ublkzc_request *rq)
{
	return rq->op == UBLKZC_WRITE || rq->op == UBLKZC_WRITE_ZEROES;
}

/* True: there is more to do. */
static bool make_stable(struct nbd_queue *q, struct op *op)
{
	struct cache *cache = &q->disk->cache;
	struct ublkzc_request *rq = op->rq;

	if (rq->op == UBLKZC_FLUSH || op->flushing) {
		if (!cache_flushed(cache, op->covers))
			op->error = -EIO;
	} else if (is_write(rq) && !(rq->fua && q->disk->export.fua)) {
		cache_wrote(cache);
		if (rq->fua && q->disk->export.flush) {
			op->flushing = true;
			begin(q, op);
			return true;
		}
	}
	return false;
}

static void end(struct nbd_queue *q, struct op *op)
{
	struct link *l = op->link;

	l->in_flight--;
	if (!(op->error ? again(q, op) : make_stable(q, op)))
		ublkzc_complete(op->rq, op->error);
	if (l->retiring && !l->in_flight && l->handle)
		link_retire(l);
}

/* Not from within itself: to complete a request can submit it once more. */
static void settle(struct nbd_queue *q)
{
	struct op *op;

	if (q->settling)
		return;
	q->settling = true;
	while ((op = op_take(&q->done)))
		end(q, op);
	q->settling = false;
}

void nbd_submit(struct ublkzc_request *rq)
{
	struct nbd_queue *q = rq->queue->priv;
	struct op *op = &q->ops[rq->tag];

	*op = (struct op){ .rq = rq };
	begin(q, op);
	settle(q);
}

/* ---- connections ---- */

static void take_new_ones(struct nbd_queue *q)
{
	struct op_list waiting = q->waiting;
	bool some = false;
	struct op *op;

	for (unsigned int i = 0; i < q->disk->options.nr_connections; i++) {
		struct link *l = &q->links[i];

		if (atomic_load(&l->slot->state) == SLOT_READY) {
			link_up(l);
			some |= l->handle != NULL;
		}
	}
	if (!some)
		return;
	q->given_up = false;
	q->lost = 0;
	/* Those that still find none wait anew, behind. */
	q->waiting = (struct op_list){ 0 };
	while ((op = op_take(&waiting)))
		begin(q, op);
}

/* Its server does not answer: what it had is asked elsewhere. */
static void give_up_on(struct nbd_queue *q, struct link *l)
{
	ublkzc_log(UBLKZC_LOG_WARNING, "%s: no answer for %u seconds: the connection is given up",
		   q->disk->target->path, q->disk->options.timeout);
	link_drop(l); /* calls nobody back */
	for (unsigned int tag = 0; tag < q->io->target->depth; tag++) {
		struct op *op = &q->ops[tag];

		if (op->link != l || !op->pieces)
			continue;
		op->pieces = 0;
		op->error = -ENOTCONN;
		op_append(&q->done, op);
	}
}

static void look_for_silence(struct nbd_queue *q, time_t now)
{
	for (unsigned int tag = 0; tag < q->io->target->depth; tag++) {
		struct op *op = &q->ops[tag];

		if (op->pieces && now - op->began > q->disk->options.timeout)
			give_up_on(q, op->link);
	}
}

static void fail_waiting(struct nbd_queue *q)
{
	struct op_list waiting = q->waiting;
	struct op *op;

	ublkzc_log(UBLKZC_LOG_ERROR,
		   "%s: no connection for %u seconds: requests fail until there is",
		   q->disk->target->path, q->disk->options.dead_timeout);
	q->given_up = true;
	q->waiting = (struct op_list){ 0 };
	while ((op = op_take(&waiting)))
		ublkzc_complete(op->rq, -EIO);
}

static void each_second(struct nbd_queue *q)
{
	const struct options *o = &q->disk->options;
	time_t now = now_seconds();
	bool busy = false;

	if (o->timeout)
		look_for_silence(q, now);
	if (q->waiting.first && o->dead_timeout && now - q->lost > o->dead_timeout)
		fail_waiting(q);
	for (unsigned int i = 0; i < o->nr_connections; i++)
		busy |= q->links[i].in_flight > 0;
	if (!q->waiting.first && !(o->timeout && busy))
		tick(q, false);
	else
		ublkzc_poll(q->io, q->timer_fd, POLLIN);
}

void nbd_ready(struct ublkzc_queue *io, int fd, int events)
{
	struct nbd_queue *q = io->priv;
	uint64_t n;

	if (fd == q->wake_fd || fd == q->timer_fd) {
		if (read(fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
			return;
		if (fd == q->timer_fd) {
			each_second(q);
		} else {
			take_new_ones(q);
			ublkzc_poll(io, q->wake_fd, POLLIN);
		}
	}
	for (unsigned int i = 0; i < q->disk->options.nr_connections; i++) {
		struct link *l = &q->links[i];
		bool end = events < 0 || events & (POLLERR | POLLHUP);
		bool in = end || events & POLLIN, out = end || events & POLLOUT;

		if (!l->handle || fd != l->fd)
			continue;
		l->armed_in &= !in;
		l->armed_out &= !out;
		link_pump(l, out);
	}
	settle(q);
}

/* ---- the queue ---- */

int nbd_queue_open(struct ublkzc_queue *io)
{
	struct disk *d = io->target->priv;
	unsigned int nr = d->options.nr_connections;
	struct nbd_queue *q = calloc(1, sizeof(*q));

	if (!q)
		return -ENOMEM;
	*q = (struct nbd_queue){
		.io = io,
		.disk = d,
		.ops = calloc(io->target->depth, sizeof(*q->ops)),
		.links = calloc(nr, sizeof(*q->links)),
		.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK),
	};
	io->priv = q;
	if (!q->ops || !q->links || q->timer_fd < 0) {
		nbd_queue_close(io);
		return -ENOMEM;
	}
	for (unsigned int i = 0; i < nr; i++) {
		struct slot *s = &d->slots[io->id * nr + i];

		q->wake_fd = s->wake_fd;
		q->links[i] =
			(struct link){ .io = io, .disk = d, .slot = s, .done = &q->done, .fd = -1 };
	}
	take_new_ones(q);
	return ublkzc_poll(io, q->wake_fd, POLLIN);
}

void nbd_queue_close(struct ublkzc_queue *io)
{
	struct nbd_queue *q = io->priv;

	for (unsigned int i = 0; q->links && i < q->disk->options.nr_connections; i++)
		if (q->links[i].handle)
			connection_take_leave(q->links[i].handle);
	if (q->timer_fd >= 0)
		close(q->timer_fd);
	free(q->links);
	free(q->ops);
	free(q);
}
