// The weights of a face's expressions, each with a name and a bar.

export class Bars {
  private readonly meters: HTMLMeterElement[];

  constructor(home: HTMLElement, names: string[]) {
    this.meters = names.map((name) => {
      const meter = document.createElement("meter");
      Object.assign(meter, { min: 0, max: 1, value: 0, ariaLabel: name });
      const [row, term, bar] = ["div", "dt", "dd"].map((kind) => document.createElement(kind));
      term.textContent = name;
      bar.append(meter);
      row.append(term, bar);
      home.append(row);
      return meter;
    });
  }

  show(weights: Float32Array): void {
    this.meters.forEach((meter, i) => {
      meter.value = weights[i];
      meter.title = weights[i].toFixed(2);
    });
  }

  clear(): void {
    this.show(new Float32Array(this.meters.length));
  }
}
