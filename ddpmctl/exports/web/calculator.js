// The worker as seen from the page.

class Calculator {
  constructor() {
    const script = new Blob([text("#worker")], { type: "text/javascript" });
    this.worker = new Worker(URL.createObjectURL(script));
    /** @type {Map<number, {onResult: (result: any) => void, resolve: (finished: boolean) => void, reject: (error: Error) => void}>} */
    this.open = new Map();
    this.last = 0;
    this.worker.onmessage = ({ data }) => this.receive(data);
    this.worker.onerror = (event) => fail(event.message || "The worker of the page cannot start.");
  }

  /** @param {WorkerMessage} message */
  receive({ id, result, done, stopped, error }) {
    const request = this.open.get(id);
    if (!request) return;
    if (result) request.onResult(result);
    if (done || error !== undefined) this.open.delete(id);
    if (error !== undefined) request.reject(new Error(error));
    else if (done) request.resolve(!stopped);
  }

  /**
   * Send a request; whatever was being computed stops.
   *
   * @param {object} request @param {(result: any) => void} onResult
   * @returns {Promise<boolean>} whether it was finished, and not stopped by another request
   */
  ask(request, onResult) {
    const id = ++this.last;
    this.worker.postMessage({ ...request, id });
    return new Promise((resolve, reject) => this.open.set(id, { onResult, resolve, reject }));
  }
}
